//! The date as HTTP writes it.

use std::cell::Cell;

use rustix::time::{ClockId, clock_gettime};

/// Such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) type Date = [u8; 29];

/// The current date. It is written once a second on each thread.
pub(crate) fn now() -> Date {
    thread_local! {
        static LAST: Cell<(i64, Date)> = const { Cell::new((-1, [0; 29])) };
    }
    let now = clock_gettime(ClockId::RealtimeCoarse).tv_sec;
    LAST.with(|last| {
        let (second, date) = last.get();
        if second == now {
            return date;
        }
        let date = written(now);
        last.set((now, date));
        date
    })
}

/// The date of a moment, in seconds since 1970, up to the year 9999.
pub(crate) fn written(seconds: i64) -> Date {
    const DAYS: &[u8] = b"ThuFriSatSunMonTueWed";
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let mut date = *b"Day, 00 Mon 0000 00:00:00 GMT";
    let name = |names: &'static [u8], index: i64| &names[3 * index as usize..][..3];
    date[..3].copy_from_slice(name(DAYS, days.rem_euclid(7)));
    date[8..11].copy_from_slice(name(MONTHS, month - 1));
    let numbers = [
        (5, day),
        (12, year / 100),
        (14, year % 100),
        (17, second / 3_600),
        (20, second / 60 % 60),
        (23, second % 60),
    ];
    for (at, number) in numbers {
        date[at] += (number / 10) as u8;
        date[at + 1] += (number % 10) as u8;
    }
    date
}

/// The year, the month and the day of a day since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that a leap day is the last day of its year.
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let leaps = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year = (day_of_era - leaps) / 365;
    let day = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (400 * era + year + i64::from(month <= 2), month, day)
}
