//! The first instructions on 32-bit ARM: a processor older than ARMv7 is told so, where it would die of an instruction that
//! it does not know. They are of ARMv5, keep r0, which the dynamic linker hands on, and end in the system's own start.
//!
//! The kernel puts argc, argv, 0, the environment, 0, and pairs of type and value (the auxiliary vector, `getauxval(3)`)
//! on the stack. Type 16, AT_HWCAP, has bit 13 from VFPv3 on, which came with ARMv7.

std::arch::global_asm!(
    r#"
    .section .text.graft_device_start, "ax", %progbits
    .arch armv5te
    .arm
    .balign 4
    .global graft_device_start
    .type graft_device_start, %function
graft_device_start:
    mov     r4, sp
    ldr     r5, [r4], #4
    add     r4, r4, r5, lsl #2
    add     r4, r4, #4
2:  ldr     r5, [r4], #4
    cmp     r5, #0
    bne     2b
3:  ldr     r5, [r4], #4
    ldr     r6, [r4], #4
    cmp     r5, #0
    beq     4f
    cmp     r5, #16
    bne     3b
    tst     r6, #0x2000
    bne     4f
    mov     r0, #2
    adr     r1, 5f
    mov     r2, #(6f - 5f)
    mov     r7, #4
    svc     #0
    mov     r0, #2
    mov     r7, #1
    svc     #0
4:  b       _start
5:  .ascii  "error: this processor is older than ARMv7, which graft-device is built for\nhint: use a Raspberry Pi 2 or newer; of the Zeros, a Zero 2 W\n"
6:
    .balign 4
    "#
);
