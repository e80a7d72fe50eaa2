use std::io::Write;

use crate::report;

#[test]
fn the_table_is_of_these_sources_and_all_in_it_is_explained() {
    let report = report::check().unwrap();
    assert!(!report.failed, "{}", report.text);
    // Of the terminal, and not of the test's own output: what was not checked should be seen.
    writeln!(std::io::stderr(), "{}", report.text).unwrap();
}
