//! A secret is replaced by another, and nobody is signed out.

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
fn a_secret_is_replaced_without_one_401() {
    let upstream = Upstream::start();
    let folder = Folder::with(ME, &upstream);
    let sidecar = folder.start();
    let (old, new) = (
        get("/me/x").bearer(&token(SECRET)),
        get("/me/x").bearer(&token(NEW)),
    );
    let (both, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut client = sidecar.connect();
            while !stop.load(Ordering::SeqCst) {
                let with_new = both.load(Ordering::SeqCst);
                assert_eq!(client.call(&old).status, 200, "the old secret");
                if with_new {
                    assert_eq!(client.call(&new).status, 200, "the new secret");
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        sidecar.call(&new).refused(401, "token_signature");
        // It is found without a word.
        folder.write("secret", &format!("{NEW}\n{SECRET}\n"));
        eventually("both are good", || generation(&sidecar) == 2);
        both.store(true, Ordering::SeqCst);
        eventually("it was asked with both, or not any more", || {
            asking.is_finished() || asked.load(Ordering::SeqCst) > 50
        });
        stop.store(true, Ordering::SeqCst);
        asking.join().unwrap();
    });
    // When the tokens of the old one have expired, it is taken out.
    folder.put(&sidecar, "secret", NEW);
    assert_eq!(sidecar.call(&new).status, 200);
    sidecar.call(&old).refused(401, "token_signature");
}

#[test]
fn a_secret_that_is_too_short_leaves_the_one_before_in_force() {
    let upstream = Upstream::start();
    let folder = Folder::with(ME, &upstream);
    let sidecar = folder.start();
    folder.write("secret", &format!("{NEW}\nshort\n"));
    eventually("it is refused", || {
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
