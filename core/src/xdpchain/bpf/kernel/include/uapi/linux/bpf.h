/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* bpf.h: bcc has this header built in. */
