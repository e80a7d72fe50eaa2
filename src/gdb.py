# Commands of gdb for the coroutines of a program that uses greenroom, in a live process or a core file.
#
# The executable has this script in its section .debug_gdb_scripts, and gdb runs it if its auto-load safe-path names
# the executable. The guide of greenroom (`guide::insight`) has the commands.
#
# How the coroutines are found: the static `ALL` has the schedulers, these the shared parts of their workers, each of
# which has the place of its worker, which has a table of started coroutines. The types are those that the program's
# debug information describes.
#
# How a parked stack is walked: an unwinder says that the innermost frame of the selected thread was called with the
# registers that the coroutine has saved. So gdb shows the frames of the coroutine as the callers of that frame,
# without a change of any register: a core file has none to change. The walk ends at the root of the coroutine, whose
# unwind table says that it has no caller.

import os
import re
import struct

import gdb
from gdb.unwinder import Unwinder

ALL = "greenroom::worker::scheduler::ALL"

# Functions of these crates are passed over when it is told where a coroutine is.
INNER = re.compile(r"^[<&*]*(?:dyn )?(?:greenroom|corosensei|core|std|alloc)::")

# What describes itself to a dump, by its module.
DESCRIBED = {"descriptor": "read or write", "several": "select", "watch": "descriptors"}


# Values of Rust


def leaf(value):
    """What is left of structs with one field that has a size: of cells, atomics and smart pointers."""
    while value.type.strip_typedefs().code == gdb.TYPE_CODE_STRUCT:
        fields = [field for field in value.type.strip_typedefs().fields() if field.type.sizeof]
        if len(fields) != 1:
            break
        value = value[fields[0]]
    return value


def variant(value):
    """The name of an enum's variant, and its fields."""
    (field,) = [field for field in value.type.fields() if field.name and not field.artificial]
    return field.name, value[field]


def pointer(value):
    """The address in a pointer, which may be wide, in whatever wraps it."""
    value = leaf(value)
    if value.type.strip_typedefs().code == gdb.TYPE_CODE_STRUCT:
        value = value[value.type.strip_typedefs().fields()[0]]
    return value


def elements(vec):
    """The elements of a `Vec`."""
    first = leaf(vec["buf"]["inner"]["ptr"]).cast(vec.type.template_argument(0).pointer())
    return (first[index] for index in range(int(vec["len"])))


def boxed_slice(slice):
    return (slice["data_ptr"][index] for index in range(int(slice["length"])))


def text(string):
    """A `str`, by a pointer to it. Without the zero that some end with."""
    length = int(string["length"])
    if length == 0:
        return ""
    bytes = gdb.selected_inferior().read_memory(int(string["data_ptr"]), length).tobytes()
    return bytes.decode(errors="replace").rstrip("\0")


def word_at(address):
    """The word at an address. Zero if it cannot be read."""
    try:
        return int.from_bytes(gdb.selected_inferior().read_memory(address, 8).tobytes(), "little")
    except gdb.MemoryError:
        return 0


def function_at(address):
    """The name of a function, and not of what was inlined into it."""
    block = gdb.block_for_pc(address)
    found = "?::?::?"
    while block is not None and not block.is_static:
        found = found if block.function is None else block.function.name
        block = block.superblock
    return found


# Coroutines


class Coroutine:
    """A started coroutine."""

    def __init__(self, place, worker, live):
        # How the commands name it: its runtime, its worker and its slot. It keeps them for as long as it exists.
        self.place = place
        self.worker = worker
        self.task = pointer(live["task"]).dereference()
        coroutine = live["coroutine"]
        self.suspended_at = int(coroutine["suspended_at"])
        # Out of date while it runs.
        is_some, saved_at = variant(leaf(coroutine["inner"])["stack_ptr"])
        self.saved_at = int(leaf(saved_at)) if is_some == "Some" else 0
        self.is_running = int(self.task.address) == worker.running

    @property
    def id(self):
        """Zero if none was taken."""
        return int(leaf(self.task["id"]))

    @property
    def name(self):
        is_some, name = variant(self.task["name"])
        return text(name["__0"]) if is_some == "Some" else None

    @property
    def spawned_at(self):
        location = self.task["spawned_at"].dereference()
        # Its name has changed between versions of std, and so has what wraps the pointer.
        file = next(location[field] for field in location.type.fields() if field.name.startswith("file"))
        return "{}:{}:{}".format(text(pointer_to_str(file)), int(location["line"]), int(location["col"]))

    @property
    def thread(self):
        """The thread that runs it."""
        return self.worker.thread

    @property
    def state(self):
        if self.is_running:
            thread = self.thread
            return "running" if thread is None else "running on thread {}".format(thread.num)
        if self.suspended_at == 0:
            return "fresh"
        if self.is_missing:
            return "suspended; its stack is not in the core file"
        reason = self.reason
        if reason == "Yield" or not self.is_waiting:
            return "ready"
        return "parked ({})".format(reason)

    @property
    def is_waiting(self):
        # See `STATE` and `WAITING` in src/task/word.rs.
        return int(leaf(self.task["word"])) & 0b111 == 1

    @property
    def reason(self):
        """What it waits for, as a dump calls it."""
        suspension = gdb.lookup_type("greenroom::task::suspension::Suspension").pointer()
        awaiting = gdb.Value(self.suspended_at).cast(suspension).dereference()["awaiting"]
        kind, what = variant(awaiting)
        if kind == "Object":
            return str(what["__0"]).rsplit("::", 1)[-1].lower()
        # The method `describe`, after the destructor, the size and the alignment. It is of the module of the type.
        module = function_at(word_at(int(what["__0"]["vtable"]) + 24)).split("<")[0].split("::")[-3]
        return DESCRIBED.get(module, module)

    @property
    def has_frames(self):
        return self.is_running or not (self.suspended_at == 0 or self.is_missing)

    @property
    def is_missing(self):
        """Whether its stack is not in the core file."""
        return not self.is_running and word_at(self.saved_at) == 0

    def __str__(self):
        name = self.name
        return "coroutine {}{}".format(self.place, "" if name is None else " '{}'".format(name))


def pointer_to_str(value):
    """The pointer to a `str` in whatever wraps it."""
    while "length" not in [field.name for field in value.type.strip_typedefs().fields()]:
        value = leaf(value[value.type.strip_typedefs().fields()[0]])
    return value


class Worker:
    def __init__(self, remote):
        self.place = leaf(remote["place"])
        is_driven, driver = variant(leaf(remote["pulse"]).dereference()["data"]["driver"]["data"]["value"])
        # The number of the thread that drives it, and the address of the task that runs.
        self.number = self.running = None
        if is_driven == "Some":
            self.number = int(leaf(driver["__0"]["sight"]["thread"]))
            self.running = word_at(int(leaf(driver["__0"]["running"])))

    def live(self):
        """The started coroutines, each with its slot."""
        if int(self.place) == 0:
            return
        table = self.place.dereference()["live"]["value"]["value"]["entries"]
        for slot, entry in enumerate(elements(table)):
            kind, live = variant(entry)
            if kind == "Occupied":
                yield slot, live["__0"]

    @property
    def thread(self):
        """The thread that drives it. A core file may have the numbers of threads in either place."""
        threads = gdb.selected_inferior().threads()
        return next((thread for thread in threads if self.number == (thread.ptid[1] or thread.ptid[0])), None)


def coroutines():
    """All started coroutines."""
    if gdb.selected_thread() is None:
        raise gdb.GdbError("There is neither a process nor a core file.")
    symbol = gdb.lookup_static_symbol(ALL) or gdb.lookup_global_symbol(ALL)
    if symbol is None:
        raise gdb.GdbError(
            "The program has no debug information of greenroom, without which its coroutines are not found: build "
            "it with `debug = true` in its profile of Cargo.toml."
        )
    for weak in elements(symbol.value()["data"]["value"]["schedulers"]):
        inner = leaf(weak).dereference()
        if int(leaf(inner["strong"])) == 0:
            continue
        scheduler = inner["data"]
        for index, remote in enumerate(boxed_slice(scheduler["workers"])):
            worker = Worker(leaf(remote).dereference()["data"])
            for slot, live in worker.live():
                yield Coroutine("{}.{}.{}".format(int(scheduler["number"]), index, slot), worker, live)


def find(which):
    """The coroutine of that place or id."""
    for coroutine in coroutines():
        if which in (coroutine.place, str(coroutine.id)) and which != "0":
            return coroutine
    raise gdb.GdbError("There is no started coroutine {}; `info coroutines` lists them.".format(which))


# Stacks


class FrameId:
    def __init__(self, sp, pc):
        self.sp = sp
        self.pc = pc


class Parked(Unwinder):
    """Shows the frames of a coroutine as the callers of a thread's innermost frame."""

    def __init__(self):
        super().__init__("greenroom")
        self.enabled = False
        self.saved = None

    def show(self, coroutine):
        """To be followed by `hide`. The thread that runs the coroutine must be selected, any thread if none does."""
        self.thread = gdb.selected_thread().ptid
        self.at = registers(gdb.newest_frame())
        self.saved = None if coroutine.is_running else coroutine.saved_at
        self.enabled = True
        gdb.invalidate_cached_frames()

    def hide(self):
        self.enabled = False
        gdb.invalidate_cached_frames()

    def first(self):
        """The innermost frame of the coroutine that is shown."""
        frame = gdb.newest_frame()
        while self.saved is not None and frame is not None and registers(frame) == self.at:
            frame = frame.older()
        return frame

    def __call__(self, pending):
        is_innermost = gdb.selected_thread().ptid == self.thread and registers(pending) == self.at
        if self.saved is None or not is_innermost:
            return None
        stack = pending.read_register("rsp")

        def word(value):
            return gdb.Value(value).cast(stack.type)

        # What corosensei's `switch_yield` has pushed. A caller's stack lies above.
        rip, rbx, rbp = (word_at(self.saved + offset) for offset in (0, 8, 16))
        info = pending.create_unwind_info(FrameId(word(self.saved), pending.read_register("rip")))
        caller = {"rip": rip, "rbx": rbx, "rbp": rbp, "rsp": self.saved + 24}
        for name, value in caller.items():
            info.add_saved_register(name, word(value))
        return info


def registers(frame):
    """The stack pointer and the instruction of a frame."""
    return [int(frame.read_register(name)) for name in ("rsp", "rip")]


def outwards(frame):
    """The frames from `frame` on."""
    while frame is not None:
        yield frame
        frame = frame.older()


PARKED = Parked()
gdb.unwinder.register_unwinder(None, PARKED, replace=True)


class Shown:
    """Shows the frames of a coroutine for the duration of a `with`."""

    def __init__(self, coroutine):
        self.coroutine = coroutine

    def __enter__(self):
        self.thread = gdb.selected_thread()
        self.level = gdb.selected_frame().level()
        if self.coroutine.is_running:
            thread = self.coroutine.thread
            if thread is None:
                raise gdb.GdbError("The thread that runs {} is not known.".format(self.coroutine))
            thread.switch()
        elif not self.coroutine.has_frames:
            raise gdb.GdbError("{} has no frames: {}.".format(self.coroutine, self.coroutine.state))
        PARKED.show(self.coroutine)
        return PARKED.first()

    def __exit__(self, *_):
        PARKED.hide()
        if self.thread.is_valid():
            self.thread.switch()
            frame = gdb.newest_frame()
            for _ in range(self.level):
                frame = frame.older()
            frame.select()


def where(coroutine):
    """The innermost function of Rust that the coroutine is in, other than greenroom's and std's."""
    with Shown(coroutine) as frame:
        for frame in outwards(frame):
            name = frame.name()
            if name is not None and "::" in name and not INNER.match(name):
                line = frame.find_sal()
                at = "" if line.symtab is None else " ({}:{})".format(line.symtab.filename, line.line)
                return name + at
    return None


def run(coroutine, command):
    """Runs a command of gdb in the innermost frame of the coroutine."""
    is_backtrace = command.split()[0] in ("bt", "backtrace", "where")
    with Shown(coroutine) as frame:
        if frame is None:
            raise gdb.GdbError("{} has no frames that gdb could find.".format(coroutine))
        frame.select()
        if is_backtrace:
            # A number is one of frames, from the innermost one of the thread on.
            command = re.sub(r"(?<= )\d+$", lambda count: str(int(count[0]) + frame.level()), command)
            gdb.write(without_frames_below(frame.level(), gdb.execute(command, to_string=True)))
        else:
            gdb.execute(command)


def without_frames_below(level, backtrace):
    """What gdb's `backtrace` has printed, from the frame of that level on."""
    lines = backtrace.splitlines(keepends=True)
    first = re.compile(r"#{}\s".format(level))
    begin = next((at for at, line in enumerate(lines) if first.match(line)), 0)
    return "".join(lines[begin:])


# Commands


class InfoCoroutines(gdb.Command):
    """Lists the started coroutines: place (runtime.worker.slot), name, state, where each one is and was spawned.

`info coroutines -quick` leaves out where each one is, for which gdb needs some milliseconds."""

    def __init__(self):
        super().__init__("info coroutines", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        if argument not in ("", "-quick"):
            raise gdb.GdbError("The only option is -quick.")
        count = 0
        for coroutine in coroutines():
            count += 1
            parts = [coroutine.state]
            if argument == "" and coroutine.has_frames:
                parts += ["in " + at for at in [where(coroutine)] if at is not None]
            parts.append("spawned at " + coroutine.spawned_at)
            if coroutine.id != 0:
                parts.append("id {}".format(coroutine.id))
            name = coroutine.name
            name = "" if name is None else "'{}' ".format(name)
            gdb.write("{} {}{}\n".format(coroutine.place, name, ", ".join(parts)))
        gdb.write("{} started coroutine{}\n".format(count, "" if count == 1 else "s"))


class CoroutineCommand(gdb.Command):
    """Runs a command of gdb in a coroutine: `coroutine PLACE COMMAND`, or `coroutine ID COMMAND`.

`coroutine 1.0.3 bt` prints its backtrace, `coroutine 1.0.3 frame apply all info locals` its variables. The numbers
of the frames of a parked coroutine begin at 1 or more. `info coroutines` lists places and ids."""

    def __init__(self):
        super().__init__("coroutine", gdb.COMMAND_STACK, prefix=True)

    def invoke(self, argument, from_tty):
        which, _, command = argument.strip().partition(" ")
        if not command:
            raise gdb.GdbError("Which coroutine, and which command? As in: coroutine 1.0.3 bt")
        run(find(which), command.strip())


class CoroutineApply(gdb.Command):
    """Runs a command of gdb in each of the started coroutines: `coroutine apply all bt`."""

    def __init__(self):
        super().__init__("coroutine apply", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        which, _, command = argument.strip().partition(" ")
        if which != "all" or not command:
            raise gdb.GdbError("Which command? As in: coroutine apply all bt")
        for coroutine in coroutines():
            gdb.write("\n{} ({}, spawned at {})\n".format(coroutine, coroutine.state, coroutine.spawned_at))
            if coroutine.has_frames:
                run(coroutine, command.strip())


class CoroutineCore(gdb.Command):
    """Writes a core file that has the stacks of all coroutines: `coroutine gcore FILE`.

gdb's own `gcore` leaves out what follows a guard region (Linux 6.13) in the same mapping, and so nearly all stacks."""

    def __init__(self):
        super().__init__("coroutine gcore", gdb.COMMAND_DATA, gdb.COMPLETE_FILENAME)

    def invoke(self, argument, from_tty):
        if not argument:
            raise gdb.GdbError("Which file? As in: coroutine gcore FILE")
        gdb.execute("gcore " + argument, from_tty)
        try:
            complete(os.path.expanduser(argument), gdb.selected_inferior().pid)
        except OSError as error:
            raise gdb.GdbError("The file has no stacks of coroutines: {}".format(error))


def complete(path, pid):
    """Copies memory of a process into the core file that gdb has made of it, page by page."""
    process = "/proc/{}/".format(pid)
    with open(path, "r+b") as core, open(process + "mem", "rb") as memory, open(process + "pagemap", "rb") as pages:
        for offset, address, size in segments(core):
            for at in range(0, size, BLOCK):
                length = min(BLOCK, size - at)
                if not has_pages(pages, address + at, length) or copy(memory, address + at, core, offset + at, length):
                    continue
                for page in range(at, at + length, PAGE):
                    copy(memory, address + page, core, offset + page, PAGE)


BLOCK = 1 << 20
PAGE = 4096


def segments(core):
    """The place in the file, the address and the size of each segment of memory in a core file."""
    header = struct.unpack("<16sHHIQQQIHHHHHH", core.read(64))
    for index in range(header[10]):
        core.seek(header[5] + index * header[9])
        kind, _, offset, address, _, size, _, _ = struct.unpack("<IIQQQQQQ", core.read(56))
        if kind == 1:
            yield offset, address, size


def has_pages(pages, address, length):
    """Whether any page of that memory is resident or swapped out."""
    words = os.pread(pages.fileno(), length // PAGE * 8, address // PAGE * 8)
    return any(byte & 0xC0 for byte in words[7::8])


def copy(memory, address, core, offset, length):
    """Copies unless all is zero, which the file has already. Returns whether the memory could be read."""
    try:
        read = os.pread(memory.fileno(), length, address)
    except OSError:
        return False
    if read.count(0) != len(read):
        os.pwrite(core.fileno(), read, offset)
    return len(read) == length


InfoCoroutines()
CoroutineCommand()
CoroutineApply()
CoroutineCore()
