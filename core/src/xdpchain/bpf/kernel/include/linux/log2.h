/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* log2.h: bcc includes it and uses nothing of it. */
