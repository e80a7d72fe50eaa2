//! Pools of resources: limits, order, failures, what an interrupt leaves.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::os::unix::net::UnixStream;
use greenroom::shims::sync::mpsc;
use greenroom::shims::thread::sleep;
use greenroom::sync::Event;
use greenroom::{
    Builder, Cancelled, CheckoutError, Elapsed, Interrupts, Pooled, ResourcePool,
    ResourcePoolBuilder, spawn, timeout, try_join_all, with_interrupts,
};

use crate::util::{PATIENCE, everywhere, ms, on_workers, until};

/// Counts the things that live, and numbers them.
#[derive(Default)]
struct Factory {
    made: AtomicUsize,
    live: AtomicUsize,
    most: AtomicUsize,
}

struct Thing {
    number: usize,
    factory: Arc<Factory>,
}

impl Factory {
    fn make(self: &Arc<Factory>) -> Thing {
        let live = self.live.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(live, Ordering::SeqCst);
        Thing {
            number: self.made.fetch_add(1, Ordering::SeqCst),
            factory: Arc::clone(self),
        }
    }

    fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }
}

impl Drop for Thing {
    fn drop(&mut self) {
        self.factory.live.fetch_sub(1, Ordering::SeqCst);
    }
}

type Pool = ResourcePool<Thing, &'static str>;

fn pool(settings: ResourcePoolBuilder<Thing>) -> (Arc<Factory>, Pool) {
    let factory = Arc::new(Factory::default());
    let maker = Arc::clone(&factory);
    let pool = settings.build(move || Ok::<_, &'static str>(maker.make()));
    (factory, pool)
}

fn of(max: usize) -> ResourcePoolBuilder<Thing> {
    ResourcePoolBuilder::default().max(max)
}

fn counts(pool: &Pool) -> (usize, usize) {
    (pool.size(), pool.idle())
}

#[test]
fn a_resource_is_made_for_a_demand_and_used_again() {
    everywhere(|| {
        let (factory, pool) = pool(of(2));
        assert!(pool.try_get().is_none(), "none is made without a demand");
        assert_eq!(counts(&pool), (0, 0));
        let first = pool.get().unwrap();
        assert_eq!(counts(&pool), (1, 0));
        drop(first);
        assert_eq!(counts(&pool), (1, 1));
        assert_eq!(pool.get().unwrap().number, 0);
        assert_eq!(pool.try_get().unwrap().number, 0);
        let (one, other) = (pool.get().unwrap(), pool.get().unwrap());
        assert_eq!((one.number, other.number), (0, 1));
        assert_eq!((factory.made(), counts(&pool)), (2, (2, 0)));
        drop((one, other));
        assert_eq!(pool.get().unwrap().number, 1, "the one that was used last");
        drop(pool);
        assert_eq!(factory.live(), 0);
    });
}

#[test]
fn no_more_exist_than_the_maximum_and_each_has_one_user() {
    everywhere(|| {
        let (factory, pool) = pool(of(3));
        let in_use = Arc::new([const { AtomicBool::new(false) }; 3]);
        let users: Vec<_> = (0..20)
            .map(|_| {
                let (pool, in_use) = (pool.clone(), Arc::clone(&in_use));
                spawn(move || {
                    for _ in 0..20 {
                        let thing = pool.get().unwrap();
                        assert!(!in_use[thing.number].swap(true, Ordering::SeqCst));
                        greenroom::yield_now();
                        in_use[thing.number].store(false, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        try_join_all(users).unwrap();
        assert!(factory.made() <= 3);
        assert_eq!(counts(&pool), (factory.made(), factory.made()));
    });
}

#[test]
fn demands_are_served_in_order() {
    on_workers(1, || {
        let (_, pool) = pool(of(1));
        let held = pool.get().unwrap();
        let (log, logged) = mpsc::channel();
        for n in 0..5 {
            let (pool, log) = (pool.clone(), log.clone());
            spawn(move || {
                let _thing = pool.get().unwrap();
                log.send(n).unwrap();
                greenroom::yield_now();
            });
            greenroom::yield_now();
        }
        drop(log);
        drop(held);
        assert!(pool.try_get().is_none(), "others wait for it");
        assert_eq!(logged.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    });
}

#[test]
fn a_demand_that_times_out_leaves_nothing() {
    everywhere(|| {
        let (factory, pool) = pool(of(1).timeout(ms(5)));
        let held = pool.get().unwrap();
        assert_eq!(pool.get().err(), Some(CheckoutError::TimedOut));
        assert_eq!(pool.get_timeout(ms(1)).err(), Some(CheckoutError::TimedOut));
        let error = io::Error::from(CheckoutError::<io::Error>::TimedOut);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(held);
        assert!(pool.get().is_ok());
        assert_eq!((factory.made(), counts(&pool)), (1, (1, 1)));
    });
}

#[test]
fn the_timeout_covers_the_making_too() {
    on_workers(1, || {
        let stalls = Arc::new(AtomicBool::new(true));
        let pool = ResourcePool::new(1, {
            let stalls = Arc::clone(&stalls);
            move || {
                if stalls.load(Ordering::Relaxed) {
                    sleep(PATIENCE * 6);
                }
                Ok::<_, io::Error>(7)
            }
        });
        let timed_out = pool.get_timeout(ms(5));
        assert!(matches!(timed_out, Err(CheckoutError::TimedOut)));
        assert_eq!((pool.size(), pool.idle()), (0, 0));
        stalls.store(false, Ordering::Relaxed);
        assert_eq!(*pool.get().unwrap(), 7);
    });
}

#[test]
fn a_factory_that_fails_or_panics_frees_the_slot_for_the_next() {
    everywhere(|| {
        let attempts = Arc::new(AtomicUsize::new(0));
        let pool = ResourcePool::new(1, {
            let attempts = Arc::clone(&attempts);
            move || match attempts.fetch_add(1, Ordering::SeqCst) {
                0 => Err("refused"),
                1 => resume_unwind(Box::new("no luck")),
                number => Ok(number),
            }
        });
        assert_eq!(pool.get().err(), Some(CheckoutError::Failed("refused")));
        let payload = catch_unwind(AssertUnwindSafe(|| pool.get())).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"no luck"));
        assert_eq!(pool.size(), 0);
        assert_eq!(*pool.get().unwrap(), 2);
    });
}

#[test]
fn demands_that_wait_while_the_factory_fails_try_themselves() {
    on_workers(1, || {
        let attempts = Arc::new(AtomicUsize::new(0));
        let pool = ResourcePool::new(1, {
            let attempts = Arc::clone(&attempts);
            move || {
                sleep(ms(2));
                match attempts.fetch_add(1, Ordering::SeqCst) {
                    0 => Err("refused"),
                    _ => Ok(()),
                }
            }
        });
        let demands = [(); 3].map(|()| {
            let pool = pool.clone();
            spawn(move || pool.get().map(drop))
        });
        let results = try_join_all(demands).unwrap();
        let refused = Err(CheckoutError::Failed("refused"));
        assert_eq!(results, [refused, Ok(()), Ok(())]);
        assert_eq!(attempts.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_discarded_resource_is_dropped_and_one_that_is_taken_out_is_not_counted() {
    everywhere(|| {
        let (factory, pool) = pool(of(1));
        pool.get().unwrap().discard();
        assert_eq!((factory.live(), counts(&pool)), (0, (0, 0)));
        let mine = pool.get().unwrap().into_inner();
        assert_eq!(mine.number, 1);
        assert_eq!(counts(&pool), (0, 0));
        assert_eq!(pool.get().unwrap().number, 2);
        drop(mine);
        pool.clear();
        assert_eq!((factory.live(), counts(&pool)), (0, (0, 0)));
    });
}

#[test]
fn a_resource_whose_user_unwinds_is_dropped() {
    everywhere(|| {
        let (factory, pool) = pool(of(1));
        let user = || {
            let _thing = pool.get().unwrap();
            resume_unwind(Box::new(()));
        };
        assert!(catch_unwind(AssertUnwindSafe(user)).is_err());
        assert_eq!((factory.live(), counts(&pool)), (0, (0, 0)));
        assert!(pool.get().is_ok());
    });
}

#[test]
fn an_interrupted_demand_or_user_leaves_nothing() {
    on_workers(2, || {
        let (factory, pool) = pool(of(1));
        let user = spawn({
            let pool = pool.clone();
            move || {
                let _thing = pool.get().unwrap();
                sleep(PATIENCE * 6);
            }
        });
        until("it has the resource", || counts(&pool) == (1, 0));
        let demand = spawn({
            let pool = pool.clone();
            move || pool.get().is_ok()
        });
        assert!(timeout(ms(2), || pool.get()).is_err());
        demand.cancel();
        assert!(demand.join().unwrap_err().is::<Cancelled>());
        user.cancel();
        assert!(user.join().unwrap_err().is::<Cancelled>());
        until("the resource is gone", || counts(&pool) == (0, 0));
        assert_eq!(factory.live(), 0);
        assert!(pool.get_timeout(PATIENCE).is_ok());
    });
}

#[test]
fn a_check_finds_broken_resources_before_they_are_given_out() {
    everywhere(|| {
        let first_good = Arc::new(AtomicUsize::new(1));
        let is_good = {
            let first_good = Arc::clone(&first_good);
            move |thing: &mut Thing| thing.number >= first_good.load(Ordering::SeqCst)
        };
        let (factory, pool) = pool(of(2).check(is_good));
        let both = (pool.get().unwrap(), pool.get().unwrap());
        drop(both);
        // 0 is broken, 1 is not, and is found first.
        assert_eq!(pool.get().unwrap().number, 1);
        let good = pool.get().unwrap();
        let other = pool.get().unwrap();
        assert_eq!((good.number, other.number), (1, 2), "0 was replaced");
        drop((good, other));
        first_good.store(3, Ordering::SeqCst);
        assert!(pool.try_get().is_none(), "both are broken");
        assert_eq!((factory.live(), counts(&pool)), (0, (0, 0)));
        assert_eq!(pool.get().unwrap().number, 3);
    });
}

/// A pool of three idle sockets, whose check reads from a peer that sends nothing. A fourth one, to be made, does so,
/// too. The peers are with it.
fn silent() -> (ResourcePool<UnixStream>, Arc<Mutex<Vec<UnixStream>>>) {
    let peers = Arc::new(Mutex::new(Vec::new()));
    let make = {
        let peers = Arc::clone(&peers);
        move || {
            let (mut near, far) = UnixStream::pair()?;
            let made = {
                let mut peers = peers.lock().unwrap();
                peers.push(far);
                peers.len()
            };
            if made > 3 {
                near.read_exact(&mut [0])?;
            }
            Ok(near)
        }
    };
    let check = |socket: &mut UnixStream| socket.read_exact(&mut [0]).is_ok();
    let pool = ResourcePoolBuilder::default().max(3).check(check);
    let pool = pool.build(make);
    drop([(); 3].map(|()| pool.get().unwrap()));
    assert_eq!((pool.size(), pool.idle()), (3, 3));
    (pool, peers)
}

/// The error that `get` has returned.
fn failure<T>(got: Result<T, CheckoutError<io::Error>>) -> io::Error {
    match got.err() {
        Some(CheckoutError::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_deadline_during_a_check_costs_one_resource() {
    for interrupts in [Interrupts::Unwind, Interrupts::Errors] {
        on_workers(1, || {
            let (pool, peers) = silent();
            let got = with_interrupts(interrupts, || pool.get_timeout(ms(5)));
            assert!(matches!(got, Err(CheckoutError::TimedOut)), "{got:?}");
            assert_eq!((pool.size(), pool.idle()), (2, 2));
            let got = with_interrupts(interrupts, || timeout(ms(5), || pool.get().is_ok()));
            assert_ne!(got, Ok(true));
            assert_eq!((pool.size(), pool.idle()), (1, 1));
            assert_eq!(peers.lock().unwrap().len(), 3, "none was made");
        });
    }
}

#[test]
fn a_cancellation_that_a_check_ignores_is_told_by_the_factory() {
    on_workers(1, || {
        let (pool, _peers) = silent();
        let builder = Builder::new().interrupts(Interrupts::Errors);
        let (begun, has_begun) = mpsc::channel();
        let demand = builder.spawn({
            let pool = pool.clone();
            move || {
                begun.send(()).unwrap();
                pool.get().map(drop)
            }
        });
        let demand = demand.unwrap();
        has_begun.recv().unwrap();
        demand.cancel();
        let error = failure(demand.join().unwrap());
        assert!(error.get_ref().is_some_and(|inner| inner.is::<Cancelled>()));
        assert_eq!((pool.size(), pool.idle()), (2, 2));
    });
}

#[test]
fn a_timeout_during_the_making_is_told_as_one_if_it_is_the_pools() {
    on_workers(1, || {
        let (pool, _peers) = silent();
        pool.clear();
        with_interrupts(Interrupts::Errors, || {
            let got = pool.get_timeout(ms(5));
            assert!(matches!(got, Err(CheckoutError::TimedOut)), "{got:?}");
            let error = failure(timeout(ms(5), || pool.get()).unwrap());
            assert!(error.get_ref().is_some_and(|inner| inner.is::<Elapsed>()));
        });
        assert_eq!(pool.size(), 0);
    });
}

#[test]
fn the_idle_limit_leaves_the_minimum_and_the_age_limit_does_not() {
    everywhere(|| {
        let (factory, pool) = pool(of(3).min(1).idle_limit(ms(100)));
        drop([(); 3].map(|()| pool.get().unwrap()));
        assert_eq!(counts(&pool), (3, 3));
        sleep(ms(110));
        assert_eq!(counts(&pool), (3, 3), "nothing happens by itself");
        pool.reap();
        assert_eq!((factory.live(), counts(&pool)), (1, (1, 1)));
    });
    everywhere(|| {
        let (factory, pool) = pool(of(3).min(1).age_limit(ms(5)));
        let old = pool.get().unwrap();
        assert!(old.made().elapsed() < PATIENCE);
        sleep(ms(8));
        drop(old);
        assert_eq!((factory.live(), counts(&pool)), (0, (0, 0)));
        drop(pool.get().unwrap());
        sleep(ms(8));
        assert_eq!(pool.get().unwrap().number, 2, "1 is too old by now");
    });
}

#[test]
fn fill_makes_the_minimum_and_no_more() {
    everywhere(|| {
        let (factory, pool) = pool(of(4).min(3));
        let one = pool.get().unwrap();
        pool.fill().unwrap();
        assert_eq!((factory.made(), counts(&pool)), (3, (3, 2)));
        drop(one);
        pool.fill().unwrap();
        assert_eq!((factory.made(), counts(&pool)), (3, (3, 3)));
        let failing = ResourcePoolBuilder::<u8>::default().min(2);
        assert_eq!(failing.build(|| Err("refused")).fill(), Err("refused"));
    });
}

#[test]
fn fills_and_demands_at_once_never_exceed_the_maximum() {
    on_workers(4, || {
        for _ in 0..50 {
            let factory = Arc::new(Factory::default());
            let maker = Arc::clone(&factory);
            let pool = of(2).min(2).build(move || {
                greenroom::yield_now();
                Ok::<_, io::Error>(maker.make())
            });
            let users: Vec<_> = (0..8)
                .map(|n| {
                    let pool = pool.clone();
                    spawn(move || match n % 3 {
                        0 => pool.fill().unwrap(),
                        1 => pool.get().unwrap().discard(),
                        _ => drop(pool.get().unwrap()),
                    })
                })
                .collect();
            try_join_all(users).unwrap();
            assert!(factory.most.load(Ordering::SeqCst) <= 2);
            assert_eq!(factory.live(), pool.idle());
        }
    });
}

#[test]
fn fill_in_an_unwind_keeps_what_it_makes() {
    struct Fills(Pool);

    impl Drop for Fills {
        fn drop(&mut self) {
            assert!(std::thread::panicking());
            self.0.fill().unwrap();
        }
    }

    everywhere(|| {
        let factory = Arc::new(Factory::default());
        let maker = Arc::clone(&factory);
        let pool = of(4).min(2).build(move || match maker.made() {
            0..10 => Ok(maker.make()),
            _ => Err("it makes more and more"),
        });
        let fills = Fills(pool.clone());
        let unwind = || {
            let _fills = fills;
            resume_unwind(Box::new(()));
        };
        assert!(catch_unwind(AssertUnwindSafe(unwind)).is_err());
        assert_eq!((factory.made(), counts(&pool)), (2, (2, 2)));
    });
}

/// Its destructor waits, once it is told to.
struct Slow {
    waits: Arc<AtomicBool>,
    go_on: Arc<Event>,
}

impl Drop for Slow {
    fn drop(&mut self) {
        if self.waits.load(Ordering::SeqCst) {
            self.go_on.wait();
        }
    }
}

#[test]
fn resources_that_are_being_dropped_neither_count_nor_delay_a_demand() {
    let drops: [fn(&ResourcePool<Slow>); 2] = [ResourcePool::clear, |pool| drop(pool.get())];
    for drop_idle in drops {
        on_workers(2, || {
            let (waits, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(Event::new()));
            let settings = ResourcePoolBuilder::default().max(2).age_limit(ms(20));
            let pool: ResourcePool<Slow> = settings.build({
                let (waits, go_on) = (Arc::clone(&waits), Arc::clone(&go_on));
                move || {
                    let (waits, go_on) = (Arc::clone(&waits), Arc::clone(&go_on));
                    Ok(Slow { waits, go_on })
                }
            });
            until("two are idle", || {
                drop([(); 2].map(|()| pool.get().unwrap()));
                pool.idle() == 2
            });
            sleep(ms(20));
            waits.store(true, Ordering::SeqCst);
            let dropping = spawn({
                let pool = pool.clone();
                move || drop_idle(&pool)
            });
            until("both are taken", || pool.idle() == 0);
            let one = pool.get_timeout(PATIENCE).unwrap();
            let (size, is_dropped) = (pool.size(), dropping.is_finished());
            go_on.set();
            drop(one);
            dropping.join().unwrap();
            assert!(size <= pool.max(), "{size}");
            assert!(!is_dropped);
        });
    }
}

#[test]
#[should_panic(expected = "a pool of no resources")]
fn a_pool_of_none_is_refused() {
    pool(of(0));
}

/// Answers each line with its length, for as long as the connection is good. A line `break` ends it.
fn serve_lines(listener: TcpListener, accepted: Arc<AtomicUsize>) {
    for stream in listener.incoming() {
        accepted.fetch_add(1, Ordering::SeqCst);
        let mut stream = stream.unwrap();
        spawn(move || {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for line in lines
                .map_while(Result::ok)
                .take_while(|line| line != "break")
            {
                sleep(ms(1));
                writeln!(stream, "{}", line.len()).unwrap();
            }
        });
    }
}

type Connection = BufReader<TcpStream>;

/// Sends a line and returns the reply. An error means that the connection is broken.
fn query(connection: &mut Pooled<Connection>, line: &str) -> io::Result<usize> {
    writeln!(connection.get_ref(), "{line}")?;
    let mut reply = String::new();
    connection.read_line(&mut reply)?;
    let reply = reply.trim().parse();
    reply.map_err(|_| io::ErrorKind::UnexpectedEof.into())
}

#[test]
fn a_hundred_queries_share_ten_connections_and_broken_ones_are_replaced() {
    on_workers(2, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        let server = spawn(move || serve_lines(listener, counter)).cancel_on_drop();
        let pool = ResourcePool::new(10, move || TcpStream::connect(addr).map(BufReader::new));
        let query_once = |pool: ResourcePool<Connection>, n: usize| {
            spawn(move || {
                let mut connection = pool.get().unwrap();
                let line = "x".repeat(n);
                assert_eq!(query(&mut connection, &line).unwrap(), n);
                connection.get_ref().local_addr().unwrap()
            })
        };
        let addresses = try_join_all((0..100).map(|n| query_once(pool.clone(), n))).unwrap();
        let distinct: HashSet<_> = addresses.iter().collect();
        assert!(distinct.len() <= 10, "{} connections", distinct.len());
        assert_eq!(distinct.len(), accepted.load(Ordering::SeqCst));
        // The server breaks one connection. Its user finds out, and the others do not get it.
        let mut breaking = pool.get().unwrap();
        assert!(query(&mut breaking, "break").is_err());
        breaking.discard();
        let after = try_join_all((0..50).map(|n| query_once(pool.clone(), n)));
        assert_eq!(after.unwrap().len(), 50);
        drop(server);
    });
}
