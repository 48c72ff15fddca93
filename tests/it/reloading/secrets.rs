//! Rotation of a secret without rejecting a token.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::folder::{Folder, generation};
use crate::harness::issuer::{SECRET, claims};
use crate::harness::{Key, Upstream, eventually, get};

const NEW: &str = "the secret after it, which is as long as it";

const ME: &str = "[[routes]]\npath = \"/me/{*rest}\"\naccess = \"authenticated\"\n";

fn token(secret: &str) -> String {
    Key::secret(secret.as_bytes()).sign(&claims("alice"))
}

#[test]
fn rotates_a_secret_without_a_401() {
    let upstream = Upstream::start();
    let folder = Folder::with(ME, &upstream);
    let sidecar = folder.start();
    let (old, new) = (
        get("/me/x").bearer(&token(SECRET)),
        get("/me/x").bearer(&token(NEW)),
    );
    let (both, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let sent = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let client_thread = scope.spawn(|| {
            let mut client = sidecar.connect();
            while !stop.load(Ordering::SeqCst) {
                let with_new = both.load(Ordering::SeqCst);
                assert_eq!(client.call(&old).status, 200, "the old secret");
                if with_new {
                    assert_eq!(client.call(&new).status, 200, "the new secret");
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        sidecar.call(&new).refused(401, "token_signature");
        // The change is detected without a reload request.
        folder.write("secret", &format!("{NEW}\n{SECRET}\n"));
        eventually("both secrets are active", || generation(&sidecar) == 2);
        both.store(true, Ordering::SeqCst);
        eventually("requests with both secrets, or the client ended", || {
            client_thread.is_finished() || sent.load(Ordering::SeqCst) > 50
        });
        stop.store(true, Ordering::SeqCst);
        client_thread.join().unwrap();
    });
    // After the tokens of the old secret expire, it is removed.
    folder.put(&sidecar, "secret", NEW);
    assert_eq!(sidecar.call(&new).status, 200);
    sidecar.call(&old).refused(401, "token_signature");
}

#[test]
fn a_short_secret_keeps_the_previous_one() {
    let upstream = Upstream::start();
    let folder = Folder::with(ME, &upstream);
    let sidecar = folder.start();
    folder.write("secret", &format!("{NEW}\nshort\n"));
    eventually("the reload failed", || {
        sidecar.metric("claimgate_config_last_reload_success") == Some(0.0)
    });
    assert_eq!(
        sidecar.call(&get("/me/x").bearer(&token(SECRET))).status,
        200
    );
    sidecar
        .call(&get("/me/x").bearer(&token(NEW)))
        .refused(401, "token_signature");
}
