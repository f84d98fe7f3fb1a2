/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* endian.h: network byte order, by the names that libbpf uses too. */
#ifndef XDPCHAIN_ENDIAN_H
#define XDPCHAIN_ENDIAN_H

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define bpf_htons(x) ((__be16)__builtin_bswap16(x))
#define bpf_htonl(x) ((__be32)__builtin_bswap32(x))
#define bpf_ntohs(x) ((u16)__builtin_bswap16(x))
#define bpf_ntohl(x) ((u32)__builtin_bswap32(x))
#else
#define bpf_htons(x) ((__be16)(x))
#define bpf_htonl(x) ((__be32)(x))
#define bpf_ntohs(x) ((u16)(x))
#define bpf_ntohl(x) ((u32)(x))
#endif

#endif
