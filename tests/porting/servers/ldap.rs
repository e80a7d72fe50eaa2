//! OpenLDAP, through its C library.

use std::ffi::{CStr, CString, c_char, c_int, c_ulong, c_void};
use std::fmt::Write;
use std::net::TcpStream;
use std::path::Path;
use std::ptr;
use std::time::Duration;

use crate::at_once::{Operations, alone};
use crate::server::{Directory, Server, not_tested, program};

/// The time that the server takes for each operation. It takes whole seconds only.
const SECOND: Duration = Duration::from_secs(1);

const ENTRIES: usize = 20;

/// The part of libldap that is used here.
mod sys {
    use super::{c_char, c_int, c_ulong, c_void};

    pub(super) enum Handle {}
    pub(super) enum Message {}

    #[repr(C)]
    pub(super) struct Value {
        pub(super) length: c_ulong,
        pub(super) bytes: *mut c_char,
    }

    pub(super) const SUCCESS: c_int = 0;
    pub(super) const OPTION_PROTOCOL_VERSION: c_int = 0x11;
    pub(super) const SCOPE_BASE: c_int = 0;

    #[link(name = "ldap")]
    unsafe extern "C" {
        pub(super) fn ldap_initialize(handle: *mut *mut Handle, uri: *const c_char) -> c_int;
        pub(super) fn ldap_set_option(
            handle: *mut Handle,
            option: c_int,
            value: *const c_void,
        ) -> c_int;
        pub(super) fn ldap_sasl_bind_s(
            handle: *mut Handle,
            name: *const c_char,
            mechanism: *const c_char,
            credentials: *const Value,
            server_controls: *mut *mut c_void,
            client_controls: *mut *mut c_void,
            server_credentials: *mut *mut Value,
        ) -> c_int;
        pub(super) fn ldap_search_ext_s(
            handle: *mut Handle,
            base: *const c_char,
            scope: c_int,
            filter: *const c_char,
            attributes: *mut *mut c_char,
            names_only: c_int,
            server_controls: *mut *mut c_void,
            client_controls: *mut *mut c_void,
            timeout: *mut libc::timeval,
            size_limit: c_int,
            result: *mut *mut Message,
        ) -> c_int;
        pub(super) fn ldap_first_entry(handle: *mut Handle, result: *mut Message) -> *mut Message;
        pub(super) fn ldap_get_values_len(
            handle: *mut Handle,
            entry: *mut Message,
            attribute: *const c_char,
        ) -> *mut *mut Value;
        pub(super) fn ldap_value_free_len(values: *mut *mut Value);
        pub(super) fn ldap_msgfree(message: *mut Message) -> c_int;
        pub(super) fn ldap_err2string(error: c_int) -> *const c_char;
        pub(super) fn ldap_unbind_ext_s(
            handle: *mut Handle,
            server_controls: *mut *mut c_void,
            client_controls: *mut *mut c_void,
        ) -> c_int;
    }
}

fn start() -> Option<Server> {
    let slapd = program("slapd")?;
    let slapadd = program("slapadd")?;
    let schema = Path::new("/etc/ldap/schema/core.schema");
    if !schema.is_file() || !Path::new("/usr/lib/ldap/retcode.so").is_file() {
        not_tested("slapd has no schema, or no overlay that takes its time");
        return None;
    }
    let directory = Directory::new("ldap");
    let data = directory.join("data");
    directory.prepare(directory.command("mkdir").arg(&data), "");
    let database = format!(
        "database ldif\n\
        suffix dc=test\n\
        rootdn cn=root,dc=test\n\
        rootpw secret\n\
        directory {}\n",
        data.display()
    );
    let common = format!(
        "include {}\n\
        modulepath /usr/lib/ldap\n\
        moduleload retcode\n\
        threads 32\n\
        {database}",
        schema.display()
    );
    // Its entries are loaded without the delay.
    let loading = directory.write("loading.conf", &common);
    let serving = format!(
        "{common}overlay retcode\nretcode-parent ou=codes,dc=test\nretcode-sleep {}\n",
        SECOND.as_secs()
    );
    let serving = directory.write("serving.conf", &serving);
    let mut entries =
        "dn: dc=test\nobjectClass: dcObject\nobjectClass: organization\no: test\ndc: test\n"
            .to_owned();
    for number in 0..ENTRIES {
        write!(
            entries,
            "\ndn: cn=number {number},dc=test\nobjectClass: person\ncn: number {number}\n\
            sn: surname\ndescription: {}\n",
            number * 2
        )
        .unwrap();
    }
    directory.prepare(directory.command(slapadd).arg("-f").arg(loading), &entries);
    let command = |directory: &Directory, port: u16| {
        let mut command = directory.command(&slapd);
        // Debugging keeps it in the foreground.
        command
            .args(["-d", "0", "-h", &uri(port), "-f"])
            .arg(&serving);
        command
    };
    let answers = |_: &Directory, port| TcpStream::connect(("127.0.0.1", port)).is_ok();
    Some(Server::start(directory, libc::SIGTERM, command, answers))
}

fn uri(port: u16) -> String {
    format!("ldap://127.0.0.1:{port}")
}

struct Connection(*mut sys::Handle);

impl Connection {
    fn new(uri: &str) -> Connection {
        let uri = CString::new(uri).unwrap();
        let mut handle = ptr::null_mut();
        // SAFETY: the handle is written, and the string ends with a zero.
        check(unsafe { sys::ldap_initialize(&raw mut handle, uri.as_ptr()) }).unwrap();
        let version: c_int = 3;
        // SAFETY: the handle is valid, and the option is an `int`.
        let done = unsafe {
            sys::ldap_set_option(
                handle,
                sys::OPTION_PROTOCOL_VERSION,
                (&raw const version).cast(),
            )
        };
        check(done).unwrap();
        Connection(handle)
    }

    fn bind(&self, name: &str, password: &str) -> Result<(), String> {
        let [name, password] = [name, password].map(|text| CString::new(text).unwrap());
        let credentials = sys::Value {
            length: password.count_bytes() as c_ulong,
            bytes: password.as_ptr().cast_mut(),
        };
        // SAFETY: the handle is valid, the strings and the value outlive the call, which only reads them, and null
        // stands for a plain password, no controls and no answer.
        let done = unsafe {
            sys::ldap_sasl_bind_s(
                self.0,
                name.as_ptr(),
                ptr::null(),
                &raw const credentials,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        check(done)
    }

    /// The description of the entry with this name.
    fn description(&self, name: &str) -> Result<String, String> {
        let name = CString::new(name).unwrap();
        let mut result = ptr::null_mut();
        // SAFETY: the handle is valid, the string outlives the call, the result is written, and null stands for
        // every entry, all attributes, no controls and no timeout.
        let done = unsafe {
            sys::ldap_search_ext_s(
                self.0,
                name.as_ptr(),
                sys::SCOPE_BASE,
                ptr::null(),
                ptr::null_mut(),
                0,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
                0,
                &raw mut result,
            )
        };
        let found = check(done).map(|()| {
            // SAFETY: the result is valid until it is freed, below. The entry has the attribute, with a value
            // of the length that it says.
            unsafe {
                let entry = sys::ldap_first_entry(self.0, result);
                assert!(!entry.is_null());
                let values = sys::ldap_get_values_len(self.0, entry, c"description".as_ptr());
                assert!(!values.is_null());
                let value = &**values;
                let bytes =
                    std::slice::from_raw_parts(value.bytes.cast(), value.length as usize).to_vec();
                sys::ldap_value_free_len(values);
                String::from_utf8(bytes).unwrap()
            }
        });
        // SAFETY: the result is null, or is freed once.
        unsafe { sys::ldap_msgfree(result) };
        found
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: the handle is valid, and is freed once.
        unsafe { sys::ldap_unbind_ext_s(self.0, ptr::null_mut(), ptr::null_mut()) };
    }
}

fn check(done: c_int) -> Result<(), String> {
    if done == sys::SUCCESS {
        return Ok(());
    }
    // SAFETY: the messages are constant strings.
    let message = unsafe { CStr::from_ptr(sys::ldap_err2string(done)) };
    Err(message.to_string_lossy().into_owned())
}

#[test]
fn binds_and_searches_of_libldap_wait_at_once() {
    let _alone = alone();
    let Some(server) = start() else { return };
    let operations = Operations {
        what: "libldap",
        count: ENTRIES,
        // A bind and a search.
        each: 2 * SECOND,
        threads: &[],
    };
    let found = operations.run(|number| {
        let connection = Connection::new(&uri(server.port()));
        connection.bind("cn=root,dc=test", "secret").unwrap();
        connection
            .description(&format!("cn=number {number},dc=test"))
            .unwrap()
    });
    for (number, description) in found.iter().enumerate() {
        assert_eq!(*description, (number * 2).to_string());
    }
}

#[test]
fn a_wrong_password_is_an_error_of_libldap() {
    let _alone = alone();
    let Some(server) = start() else { return };
    let operations = Operations {
        what: "libldap, wrong passwords",
        count: ENTRIES,
        each: SECOND,
        threads: &[],
    };
    let outcomes =
        operations.run(|_| Connection::new(&uri(server.port())).bind("cn=root,dc=test", "guessed"));
    let wanted = Err("Invalid credentials".to_owned());
    assert!(
        outcomes.iter().all(|outcome| *outcome == wanted),
        "{outcomes:?}"
    );
}
