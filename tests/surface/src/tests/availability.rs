use crate::availability::on_linux;

#[test]
fn what_names_linux_or_unix_is_there() {
    for note in [
        "Available on Linux only.",
        "Available on Unix only.",
        "Available on Android or Linux or DragonFly BSD or FreeBSD only.",
        "Available on Unix and (Android or Linux or Cygwin) only.",
        "Available on (Unix or HermitCore or target_os=trusty) and non-target_os=trusty only.",
        "Available on neither WebAssembly nor HermitCore nor target_os=motor.",
        "Available on non-no_rc and target_has_atomic=ptr only.",
        "Available on target_has_atomic_load_store=64 only.",
        "Linux",
        "Non-Fuchsia",
    ] {
        assert!(on_linux(note), "{note}");
    }
}

#[test]
fn what_names_others_alone_is_not() {
    for note in [
        "Available on Windows only.",
        "Available on WASI and target_env=p2 only.",
        "Available on macOS or iOS only.",
        "Available on Unix and (Apple or DragonFly BSD) only.",
        "Available on non-Linux only.",
        "Available on neither Linux nor Windows.",
        "Available on target_has_atomic=128 only.",
        "Windows",
    ] {
        assert!(!on_linux(note), "{note}");
    }
}
