//! How the NIF library is linked.

fn main() {
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        // Once loaded it stays mapped: the VM may unload the module while a thread still has destructors in the library.
        Ok("linux") => println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete"),
        // The VM provides the `enif_` symbols when it loads the library.
        Ok("macos") => println!("cargo::rustc-cdylib-link-arg=-Wl,-undefined,dynamic_lookup"),
        _ => {}
    }
}
