use super::*;
use crate::RuntimeBuilder;
use crate::shims::thread::sleep;

/// What a hook has told.
type Told = std::sync::Mutex<Option<[usize; 2]>>;

#[test]
fn rolls_that_a_worker_answers_at_the_same_time_all_make_progress() {
    // Takes many moments.
    const COUNT: usize = 2000;
    let told = Arc::new(Told::default());
    let is_ready = Arc::new(AtomicBool::new(false));
    let answer_both = {
        let (told, is_ready) = (Arc::clone(&told), Arc::clone(&is_ready));
        move || {
            if !is_ready.swap(false, Ordering::Relaxed) {
                return;
            }
            let rolls = [Traces::All; 2].map(|traces| Wanted::All { traces });
            let rolls = rolls.map(|wanted| Arc::new(Roll::new(wanted, 1)));
            Worker::with_current(|worker| {
                let worker = worker.expect("hooks are called by workers");
                for roll in &rolls {
                    worker.remote.rolls().ask(Arc::clone(roll));
                }
                worker.answer_rolls();
                worker.answer_rolls();
                let progress = |roll: &Arc<Roll>| roll.progress[0].load(Ordering::Relaxed);
                *task::lock_aside(&told) = Some(rolls.each_ref().map(progress));
                for roll in &rolls {
                    roll.is_over.store(true, Ordering::Relaxed);
                }
                worker.answer_all_rolls();
            });
        }
    };
    let runtime = RuntimeBuilder::new().workers(1).before_poll(answer_both);
    runtime.build().unwrap().run(|| {
        let started = Arc::new(AtomicUsize::new(0));
        let park = || {
            let started = Arc::clone(&started);
            crate::spawn(move || {
                started.fetch_add(1, Ordering::Relaxed);
                crate::park();
            })
        };
        let parked: Vec<_> = (0..COUNT).map(|_| park()).collect();
        while started.load(Ordering::Relaxed) < COUNT {
            sleep(Duration::from_millis(1));
        }
        is_ready.store(true, Ordering::Relaxed);
        while task::lock_aside(&told).is_none() {
            sleep(Duration::from_millis(1));
        }
        parked.iter().for_each(|parked| parked.thread().unpark());
    });
    let told = told.lock().unwrap().take().unwrap();
    assert!(told.iter().all(|described| *described > 0), "{told:?}");
}
