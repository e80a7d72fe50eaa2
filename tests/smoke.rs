use std::time::{Duration, Instant};
#[test]
fn spawn_from_main() {
    assert_eq!(greenroom::spawn(|| 5).join().unwrap(), 5);
    let hs: Vec<_> = (0..10000)
        .map(|i| {
            greenroom::spawn(move || {
                greenroom::yield_now();
                i
            })
        })
        .collect();
    let s: u64 = hs.into_iter().map(|h| h.join().unwrap()).sum();
    assert_eq!(s, 49995000);
    greenroom::wait_idle();
}
#[test]
fn run_and_sleep() {
    for w in [1, 4] {
        let rt = greenroom::RuntimeBuilder::new().workers(w).build().unwrap();
        let t = Instant::now();
        rt.run(|| {
            let hs: Vec<_> = (0..100)
                .map(|_| {
                    greenroom::spawn(|| {
                        greenroom::park_timeout(Duration::from_millis(50));
                    })
                })
                .collect();
            for h in hs {
                h.join().unwrap();
            }
        });
        assert!(t.elapsed() < Duration::from_secs(1));
        rt.run(|| {
            for _ in 0..10 {
                greenroom::spawn(|| greenroom::park());
            }
            greenroom::yield_now();
        });
        drop(rt);
    }
}
#[test]
fn panics() {
    greenroom::run(|| {
        let r = greenroom::Builder::new()
            .name("boom".into())
            .spawn(|| panic!("ouch"))
            .unwrap()
            .join();
        assert_eq!(r.unwrap_err().downcast_ref::<&str>().unwrap(), &"ouch");
        assert!(greenroom::unblock(
            || std::thread::current().name() == Some("greenroom-pool")
        ));
    });
}
