/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* page.h: bcc includes it for PAGE_SIZE, which comes from the compiler's command line. */
