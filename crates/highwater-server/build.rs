//! Makes the types of the remote interface from its definition, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "proto/highwater/v1/highwater.proto";
    println!("cargo:rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    let encoded = prost::Message::encode_to_vec(&descriptors);
    std::fs::write(out.join("highwater.bin"), encoded)?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
