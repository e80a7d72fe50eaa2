use crate::signature::Signature;

fn function(code: &str) -> Signature {
    Signature::of_item("fn", code.to_owned(), code)
}

fn method(block: &str, code: &str) -> Signature {
    Signature::of_member(code.to_owned(), code, block)
}

fn implementation(head: &str) -> Signature {
    Signature::of_implementation(head.to_owned(), head, &[]).0
}

#[test]
fn names_of_arguments_parameters_and_lifetimes_do_not_count() {
    assert_eq!(
        function("pub fn f<'a, T>(x: &'a T, y: u8) -> &'a T"),
        function("pub fn f<'scope, Value>(value: &'scope Value, _: u8) -> &'scope Value"),
    );
    assert_ne!(
        function("pub fn f<T, U>(x: T, y: U) -> T"),
        function("pub fn f<T, U>(x: T, y: U) -> U"),
    );
    assert_ne!(
        function("pub fn f<'a, 'b>(x: &'a u8, y: &'b u8) -> &'a u8"),
        function("pub fn f<'a, 'b>(x: &'a u8, y: &'b u8) -> &'b u8"),
    );
}

#[test]
fn a_lifetime_that_is_used_once_may_be_left_out() {
    assert_eq!(
        implementation("impl<'a> std::Iterator for Incoming<'a>"),
        implementation("impl std::Iterator for Incoming<'_>"),
    );
    assert_eq!(
        function("pub fn f<'a>(x: &'a u8)"),
        function("pub fn f(x: &u8)"),
    );
    assert_ne!(
        implementation("impl<'a: 'static> A for B<'a>"),
        implementation("impl A for B<'_>"),
    );
}

#[test]
fn place_and_order_of_bounds_do_not_count() {
    assert_eq!(
        function("pub fn f<F, T>(f: F) where F: FnOnce() -> T + Send + 'static, T: Send"),
        function("pub fn f<F: 'static + Send, T>(f: F) where T: Send, F: FnOnce() -> T"),
    );
    assert_ne!(
        function("pub fn f<T: Send>(t: T)"),
        function("pub fn f<T: Send + 'static>(t: T)"),
    );
    assert_ne!(
        function("pub fn f<T>(t: T)"),
        function("pub fn f<T: ?Sized>(t: T)")
    );
}

#[test]
fn an_argument_that_is_any_type_is_no_parameter() {
    assert_ne!(
        function("pub fn f<T: Send>(t: T)"),
        function("pub fn f(t: impl Send)")
    );
}

#[test]
fn paths_count() {
    assert_ne!(
        function("pub fn f() -> std::io::Result<()>"),
        function("pub fn f() -> std::fmt::Result<()>"),
    );
    assert_ne!(
        function("pub fn f(x: std::net::TcpStream)"),
        function("pub fn f(x: ::std::net::TcpStream)"),
    );
}

#[test]
fn const_unsafe_and_receivers_count() {
    let block = "impl<T> Door<T>";
    for other in [
        "pub const fn f(&self)",
        "pub unsafe fn f(&self)",
        "pub fn f(&mut self)",
        "pub fn f(self)",
        "pub fn f()",
        "pub fn f(&self) -> u8",
    ] {
        assert_ne!(
            method(block, "pub fn f(&self)"),
            method(block, other),
            "{other}"
        );
    }
}

#[test]
fn a_type_may_call_itself_self() {
    assert_eq!(
        method("impl<T> Door<T>", "pub fn new(t: T) -> Result<Self>"),
        method("impl<U> Door<U>", "pub fn new(u: U) -> Result<Door<U>>"),
    );
    assert_ne!(
        method("impl<T> Door<T>", "pub fn new(t: T) -> Self"),
        method("impl<T> Door<T>", "pub fn new(t: T) -> Door<u8>"),
    );
}

#[test]
fn what_a_block_asks_for_counts_for_its_members() {
    assert_ne!(
        method("impl<T> Door<T>", "pub fn f(&self)"),
        method("impl<T: ?Sized> Door<T>", "pub fn f(&self)"),
    );
}

#[test]
fn a_method_may_ask_for_what_its_block_does_not() {
    let sized = method("impl<T> Door<T>", "pub fn f(self)");
    let block = "impl<T: ?std::marker::Sized> Door<T>";
    let asking = "pub fn f(self) where T: std::marker::Sized";
    assert_eq!(sized, method(block, asking));
    assert_ne!(sized, method(block, "pub fn f(self)"));
    assert_eq!(
        method("impl<T: Send> Door<T>", "pub fn f(self)"),
        method("impl<T> Door<T>", "pub fn f(self) where T: Send"),
    );
}

#[test]
fn what_never_holds_does_so_for_whatever_bounds() {
    assert_eq!(
        implementation("impl<T: ?Sized> !Send for Guard<'_, T>"),
        implementation("impl<'a, T> !Send for Guard<'a, T>"),
    );
}

#[test]
fn a_constant_is_compared_by_its_type() {
    let block = "impl Door";
    assert_eq!(
        method(block, "pub const WIDTH: u32 = 80"),
        method(block, "pub const WIDTH: u32 = 90")
    );
    assert_ne!(
        method(block, "pub const WIDTH: u32 = 80"),
        method(block, "pub const WIDTH: u64 = 80")
    );
}

#[test]
fn members_of_a_trait_are_compared_as_methods_are() {
    let block = "pub trait Squeak<T>: Sized";
    assert_eq!(
        method(
            block,
            "fn f<'a>(&self, t: &'a T) -> Result<T> where Self: Sized,"
        ),
        method(block, "fn f(&self, _: &T) -> Result<T> where Self: Sized"),
    );
    assert_eq!(
        method(block, "fn f(&self)"),
        method("pub trait Squeak<T>: Sealed", "fn f(&self)"),
    );
    assert_ne!(
        method(block, "type Iter: Iterator<Item = u8>"),
        method(block, "type Iter: Iterator<Item = u16>"),
    );
}

#[test]
fn what_a_method_of_a_trait_asks_of_self_counts() {
    let block = "pub trait Squeak";
    assert_ne!(
        method(block, "fn f(&self) where Self: std::marker::Sized"),
        method(block, "fn f(&self)"),
    );
}

#[test]
fn an_implementation_is_compared_with_its_polarity_bounds_and_types() {
    let send = "impl<T> Send for Door<T>";
    assert_ne!(
        implementation(send),
        implementation("impl<T> !Send for Door<T>")
    );
    assert_ne!(
        implementation(send),
        implementation("impl<T: Send> Send for Door<T>")
    );
    let key = |head: &str| Signature::of_implementation(String::new(), head, &[]).1;
    assert_eq!(key(send), key("impl<U> !Send for Door<U> where U: Send"));
    assert_ne!(key(send), key("impl<T> Send for &Door<T>"));

    let with = |ty: &str| Signature::of_implementation(String::new(), send, &[ty.to_owned()]).0;
    assert_ne!(with("type Item = u8"), with("type Item = u16"));
}

#[test]
fn private_fields_do_not_count() {
    let of = |code: &str| Signature::of_item("struct", code.to_owned(), code);
    assert_eq!(of("pub struct Door<T> { }"), of("pub struct Door<T>();"));
    assert_ne!(
        of("pub struct Door<T> { }"),
        of("pub struct Door<T: Send>();")
    );
    let of = |code: &str| Signature::of_item("trait", code.to_owned(), code);
    assert_ne!(
        of("pub trait Squeak { fn f(); }"),
        of("pub trait Squeak: Sealed { fn f(); }")
    );
    let of = |code: &str| Signature::of_item("enum", code.to_owned(), code);
    assert_ne!(
        of("pub enum Kind { A, B }"),
        of("#[non_exhaustive] pub enum Kind { A, B }")
    );
}
