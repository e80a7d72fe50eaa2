//! `examples/util/date.rs`.

#[path = "../../examples/util/date.rs"]
mod date;

#[test]
fn dates_are_written_as_http_wants_them() {
    // As Python's `email.utils.formatdate(seconds, usegmt=True)` writes them.
    let dates = [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
        (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
        (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
        (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
        (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ];
    for (seconds, wanted) in dates {
        let written = date::written(seconds);
        assert_eq!(str::from_utf8(&written), Ok(wanted), "{seconds}");
    }
    assert_ne!(date::now(), date::written(0));
}
