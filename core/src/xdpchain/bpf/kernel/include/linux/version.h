/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* version.h: bcc asks for a version to choose between old and new names of the kernel; the newest it knows is right for UAPI alone. */
#ifndef XDPCHAIN_VERSION_H
#define XDPCHAIN_VERSION_H

#define KERNEL_VERSION(major, minor, patch) (((major) << 16) + ((minor) << 8) + (patch))
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 1, 0)

#endif
