//! The models, over the tool that `check` stands for.

#[path = "../../../../src/sync/attempt.rs"]
mod attempt;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/worker/attention.rs"]
mod attention;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/worker/census.rs"]
mod census;
#[allow(dead_code, reason = "a model uses its part")]
#[allow(
    clippy::duplicate_mod,
    reason = "modelled alone as well, which `channel` hides"
)]
#[path = "../../../../src/channel/mpmc/chain.rs"]
mod chain;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "a model uses its part, and publishes nothing"
)]
#[path = "../../../../src/channel/mpmc/mod.rs"]
mod channel;
#[allow(
    clippy::duplicate_mod,
    reason = "modelled alone as well, which `channel` hides"
)]
#[path = "../../../../src/channel/mpmc/spin.rs"]
mod channel_spin;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/task/completion.rs"]
mod completion;
#[path = "../../../../src/sync/condvar.rs"]
mod condvar;
#[path = "../../../../src/patch/counted.rs"]
mod counted;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/pool/crew.rs"]
mod crew;
#[path = "../../../../src/task/inbox.rs"]
mod inbox;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/sync/line.rs"]
mod line;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/park/list.rs"]
pub(crate) mod list;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/sync/lot.rs"]
mod lot;
#[path = "../../../../src/diagnose/monitor_sleep.rs"]
mod monitor_sleep;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/sync/mutex.rs"]
mod mutex;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/sync/once.rs"]
mod once;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/reactor/ready_word.rs"]
mod ready_word;
#[path = "../../../../src/task/refs.rs"]
mod refs;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/runtime/join/registration.rs"]
mod registered_future;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/reactor/registration.rs"]
mod registration;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/sync/rwlock.rs"]
mod rwlock;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "a model uses its part, and publishes nothing"
)]
#[path = "../../../../src/sync/semaphore.rs"]
mod semaphore;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/park/several.rs"]
pub(crate) mod several;
#[path = "../../../../src/future/signal.rs"]
mod signal;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/worker/sleep.rs"]
mod sleep;
#[path = "../../../../src/worker/standstill.rs"]
mod standstill;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/park/waiters.rs"]
mod waiters;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/task/word.rs"]
pub(crate) mod word;
#[path = "../../../../src/runtime/writing.rs"]
mod writing;

mod awaiting;
mod channels;
mod choosing;
mod counting;
mod excluding;
mod futex;
mod idling;
mod joining;
mod locks;
mod mail;
mod monitoring;
pub(crate) mod park;
mod parking;
mod permits;
mod polling;
mod pool;
mod readiness;
mod registering;
mod sending;
mod sleeping;
mod spin;
mod stillness;
pub(crate) mod task;
mod waiting;

pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// How many preemptions loom considers. `None` if only shuttle runs the model.
    #[allow(dead_code, reason = "shuttle considers any number")]
    pub(crate) preemptions: Option<usize>,
    pub(crate) run: fn(),
}

/// A model that is small enough to be run in all orders.
const fn small(name: &'static str, preemptions: usize, run: fn()) -> Model {
    Model {
        name,
        preemptions: Some(preemptions),
        run,
    }
}

/// A model with too many threads or rounds for that.
const fn large(name: &'static str, run: fn()) -> Model {
    Model {
        name,
        preemptions: None,
        run,
    }
}

pub(crate) fn all() -> impl Iterator<Item = &'static Model> {
    [
        awaiting::MODELS,
        channels::MODELS,
        choosing::MODELS,
        counting::MODELS,
        futex::MODELS,
        excluding::MODELS,
        idling::MODELS,
        joining::MODELS,
        locks::MODELS,
        mail::MODELS,
        monitoring::MODELS,
        parking::MODELS,
        permits::MODELS,
        polling::MODELS,
        pool::MODELS,
        readiness::MODELS,
        registering::MODELS,
        sending::MODELS,
        sleeping::MODELS,
        stillness::MODELS,
        waiting::MODELS,
    ]
    .into_iter()
    .flatten()
}
