//! On 32-bit ARM the program starts in `src/oldest.rs`, which looks at the processor before anything else does.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("arm") {
        println!("cargo::rustc-link-arg-bins=-Wl,-e,graft_device_start");
    }
}
