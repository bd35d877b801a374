//! Generates the code of a language from the built library: `uniffi-bindgen generate --language python LIBRARY`.

fn main() {
    uniffi::uniffi_bindgen_main();
}
