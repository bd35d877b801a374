//! TLS, with a certificate that is made for the test.

use std::path::{Path, PathBuf};
use std::process::Command;

use highwater::Kind;
use highwater_server::v1;
use highwater_server::v1::backups_client::BackupsClient;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::world::{Serving, World, bearing};

/// A certificate for localhost and its key.
pub(crate) fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (cert, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_speaks_http_2_and_http_1() {
    let world = World::new();
    let (cert, key) = certificate(world.dir.path());
    let (tokens, [read, ..]) = world.tokens();
    // Not on loopback alone, as it has both.
    let builder = world.server().listen("0.0.0.0:0".parse().unwrap()).tls(&cert, key);
    let serving = Serving::of(builder.tokens(tokens).audit(world.path("audit.jsonl"))).await;
    let port = serving.address().port();
    let endpoint = Endpoint::from_shared(format!("https://localhost:{port}")).unwrap();
    let pem = std::fs::read(&cert).unwrap();
    let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&pem));
    let channel = endpoint.clone().tls_config(trusting).unwrap().connect().await.unwrap();
    let mut backups = BackupsClient::new(channel);
    let asked = bearing(&read, v1::GetStatusRequest::default());
    let status = backups.get_status(asked).await.unwrap().into_inner();
    assert_eq!(status.nodes[0].node, "node");
    // Who does not know the certificate does not talk to it.
    let strange = endpoint.tls_config(ClientTlsConfig::new()).unwrap().connect().await;
    assert!(strange.is_err());
    let open = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect().await;
    if let Ok(open) = open {
        let asked = bearing(&read, v1::GetStatusRequest::default());
        assert!(BackupsClient::new(open).get_status(asked).await.is_err());
    }
    // HTTP/1.1 through another client.
    let request = format!(
        "GET /readyz HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {read}\r\nconnection: \
         close\r\n\r\n"
    );
    let sent = world.path("request");
    std::fs::write(&sent, request).unwrap();
    let spoken = Command::new("openssl")
        .args(["s_client", "-quiet", "-alpn", "http/1.1", "-verify_return_error", "-connect"])
        .arg(format!("localhost:{port}"))
        .arg("-CAfile")
        .arg(&cert)
        .stdin(std::fs::File::open(sent).unwrap())
        .output();
    let spoken = tokio::task::block_in_place(|| spoken.unwrap());
    let answer = String::from_utf8_lossy(&spoken.stdout);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("no_backup"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_certificate_or_no_key_is_told() {
    let world = World::new();
    let (cert, key) = certificate(world.dir.path());
    let start = async |cert: &Path, key: &Path| {
        world.server().tls(cert, key).start().await.err().unwrap().kind()
    };
    let missing = world.path("missing.pem");
    assert_eq!(start(&missing, &key).await, Kind::NotFound);
    assert_eq!(start(&cert, &missing).await, Kind::NotFound);
    assert_eq!(start(&key, &key).await, Kind::Input);
    assert_eq!(start(&cert, &cert).await, Kind::Input);
    let other = world.path("other");
    std::fs::create_dir(&other).unwrap();
    let (_, stranger) = certificate(&other);
    assert_eq!(start(&cert, &stranger).await, Kind::Input);
}
