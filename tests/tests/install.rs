//! `sudo make install` copies what `make` has built: root seldom has Rust, and what it builds would be root's.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use pg_redis_cache_tests::{Folder, installation, repository};

/// A checkout of only what `make install` reads.
fn checkout() -> Folder {
    let folder = Folder::new();
    let from = repository();
    fs::copy(from.join("Makefile"), folder.path().join("Makefile")).unwrap();
    fs::create_dir(folder.path().join("scripts")).unwrap();
    for script in ["common.sh", "setup", "install"] {
        let script = Path::new("scripts").join(script);
        fs::copy(from.join(&script), folder.path().join(&script)).unwrap();
    }
    folder
}

/// `make install` as sudo would run it, in an environment without Rust.
fn install(checkout: &Path) -> Output {
    Command::new("make")
        .args(["-C", checkout.to_str().unwrap(), "install"])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("PG_CONFIG", installation().bindir.join("pg_config"))
        .env("SUDO_USER", "somebody")
        .env("DESTDIR", checkout.join("destination"))
        .output()
        .unwrap()
}

#[test]
fn what_was_built_is_copied_without_rust() {
    let checkout = checkout();
    let library = installation().pkglibdir.join("pg_redis_cache.so");
    let package = format!(".build/package-pg{}", installation().major);
    let below = |folder: &str| {
        let file = library.strip_prefix("/").unwrap();
        checkout.path().join(folder).join(file)
    };
    let built = below(&package);
    fs::create_dir_all(built.parent().unwrap()).unwrap();
    fs::write(&built, "a library").unwrap();
    let output = install(checkout.path());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_to_string(below("destination")).unwrap(), "a library");
}

#[test]
fn without_a_build_it_says_what_to_do_first() {
    let checkout = checkout();
    let output = install(checkout.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("run `make` first"),
        "{said}"
    );
}
