//! Builds libdsmr and the C programs around it.
//!
//!   zig build                    this machine's library, headers and C examples, in zig-out/
//!   zig build cross              the library for every supported target, in zig-out/cross/
//!   zig build test               builds and runs the C tests; -Dsanitize=undefined|thread,
//!                                -Dtest-target=musl, -Dtest-target=arm64 -Demulator=qemu-aarch64
//!   zig build bench              the C benchmarks, in zig-out/bin/

const std = @import("std");
const Compile = std.Build.Step.Compile;
const ResolvedTarget = std.Build.ResolvedTarget;

/// The library's sources, in c/. A new file is named here or it is not built.
/// The way into an uncontended lock is built for speed, the rest for size: the whole library is
/// to fit into 64 KiB. For that the rest is one translation unit (see oneUnit), so the names of
/// its static functions must differ.
const hot_sources = [_][]const u8{"lock_pair.c"};
const cold_sources = [_][]const u8{
    "status.c",
    "process.c",
    "control.c",
    "table_lock.c",
    "database.c",
    "backend.c",
    "segment.c",
    "entry.c",
    "registry.c",
    "init_once.c",
    "segment_calls.c",
    "tranche.c",
    "waitgraph.c",
    "handle.c",
    "journal.c",
    "claim.c",
    "lock.c",
    "lwlock.c",
    "lwlock_wait.c",
    "lock_info.c",
    "tranche_calls.c",
    "reserve.c",
    "watch.c",
    "watch_calls.c",
    "abi.c",
    "os_posix.c",
};
const linux_sources = cold_sources ++ [_][]const u8{"os_linux.c"};
const darwin_sources = cold_sources ++ [_][]const u8{"os_darwin.c"};

/// The library's own headers, in c/. What the internal ones declare does not leave that unit;
/// lock_pair.c calls what is declared in the others.
const internal_headers = [_][]const u8{
    "os.h",        "process.h", "control.h",   "backend.h", "database.h", "status.h",  "entry.h", "segment.h", "tranche.h",
    "init_once.h", "reserve.h", "waitgraph.h", "handle.h",  "lwlock.h",   "journal.h", "watch.h",
};
const hot_headers = [_][]const u8{ "claim.h", "lwlock_path.h" };

/// The headers that a C program needs, in c/.
const public_headers = [_][]const u8{ "dsmr.h", "layout.h" };

/// Programs, each of one file: in c/tests/, examples/ and below bench/.
const test_programs = [_][]const u8{
    "segment_test.c",
    "registry_test.c",
    "backend_test.c",
    "hostile_test.c",
    "bell_test.c",
    "fault_test.c",
    "kill_test.c",
    "scope_test.c",
    "scope_kill_test.c",
    "lock_kill_test.c",
    "lock_test.c",
    "lock_bias_test.c",
    "lock_calls_test.c",
    "lock_properties_test.c",
    "lock_damage_test.c",
    "lock_wakeup_test.c",
    "lock_cost_test.c",
    "lock_storm_test.c",
    "reserve_kill_test.c",
    "watch_test.c",
    "watch_end_test.c",
    "watch_storm_test.c",
};
const example_programs = [_][]const u8{"word_table.c"};
/// C programs of c/tests/ that the TypeScript tests start.
const partner_programs = [_][]const u8{ "interleave.c", "storm_member.c" };
const bench_programs = [_][]const u8{
    "subjects/segments.c",
    "subjects/pair.c",
    "subjects/death.c",
    "subjects/ping.c",
    "scaling/contention.c",
    "scaling/growth.c",
    "whole_process/whole.c",
};

const cross_targets = [_]std.Target.Query{
    .{ .cpu_arch = .x86_64, .os_tag = .linux },
    .{ .cpu_arch = .aarch64, .os_tag = .linux },
    .{ .cpu_arch = .x86_64, .os_tag = .macos },
    .{ .cpu_arch = .aarch64, .os_tag = .macos },
};

/// What the libraries for packages call themselves: the digits become those of the content's hash
/// (.ci/package.ts), by which the dynamic linker then knows a library that is loaded already.
const packaged_name = "dsmr-0123456789abcdef";

const flags = [_][]const u8{
    "-std=c17",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wshadow",
    "-Wconversion",
    "-Wsign-conversion",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wvla",
    "-Werror",
    // The OS files need it for open file description locks and the like. Every file gets it,
    // so that a shared header means the same everywhere.
    "-D_GNU_SOURCE",
    // Only calls marked DSMR_API leave the library.
    "-fvisibility=hidden",
};

/// Nothing is thrown through C, so the tables for unwinding would be 9 KiB for nobody.
const release_flags = flags ++ [_][]const u8{ "-fno-unwind-tables", "-fno-asynchronous-unwind-tables" };

const Sanitize = enum { none, undefined, thread };

/// What the C tests are built for. The latter two are linked statically against musl: an arm64
/// program then needs nothing of an arm64 system.
const TestTarget = enum { host, musl, arm64 };

pub fn build(b: *std.Build) void {
    const sanitize = b.option(Sanitize, "sanitize", "Sanitizer of the C tests (default: none)") orelse .none;
    const test_target = b.option(TestTarget, "test-target", "What the C tests are built for (default: host)") orelse .host;
    const emulator = b.option([]const u8, "emulator", "The program that runs the C tests");

    const host = b.graph.host;
    const library = addSharedLibrary(b, "dsmr", .{
        .cpu_arch = host.result.cpu.arch,
        .os_tag = host.result.os.tag,
    });
    b.installArtifact(library);
    for (public_headers) |name| {
        b.getInstallStep().dependOn(&b.addInstallHeaderFile(b.path(b.fmt("c/{s}", .{name})), name).step);
    }
    const all = b.getInstallStep();
    for (example_programs) |name| all.dependOn(installProgram(b, b.fmt("examples/{s}", .{name}), library));
    for (partner_programs) |name| {
        all.dependOn(installProgram(b, b.fmt("c/tests/{s}", .{name}), library));
        if (host.result.os.tag != .linux) continue;
        all.dependOn(installMuslProgram(b, b.fmt("c/tests/{s}", .{name}), library));
    }

    const cross = b.step("cross", "Build the library for every supported target");
    for (cross_targets) |query| {
        const directory = b.fmt("cross/{t}-{t}", .{ query.cpu_arch.?, query.os_tag.? });
        const is_linux = query.os_tag.? == .linux;
        const cross_library = addSharedLibrary(b, if (is_linux) packaged_name else "dsmr", query);
        const install = b.addInstallArtifact(cross_library, .{
            .dest_dir = .{ .override = .{ .custom = directory } },
            .dest_sub_path = if (is_linux) "libdsmr.so" else null,
        });
        cross.dependOn(&install.step);
    }

    const tests = b.step("test", "Build and run the C tests");
    const tests_for = switch (test_target) {
        .host => host,
        .musl => b.resolveTargetQuery(.{
            .cpu_arch = host.result.cpu.arch,
            .os_tag = .linux,
            .abi = .musl,
        }),
        .arm64 => b.resolveTargetQuery(.{ .cpu_arch = .aarch64, .os_tag = .linux, .abi = .musl }),
    };
    var programs: [test_programs.len]*Compile = undefined;
    for (&programs, test_programs) |*program, name| {
        program.* = addProgram(b, b.fmt("c/tests/{s}", .{name}), testModule(b, tests_for, sanitize));
        addLibrarySources(b, program.*.root_module);
        // What takes many repetitions takes fewer.
        if (emulator != null) program.*.root_module.addCMacro("CHECK_EMULATED", "1");
        if (test_target != .host) program.*.root_module.addCMacro("CHECK_LIBC_INSIDE", "1");
        // A lost wake-up is a hang there.
        if (std.mem.eql(u8, name, "lock_wakeup_test.c")) {
            for ([_][]const u8{ "LWLOCK_SLEEP_MAX_NS", "LOCK_SLICE_NS", "LOOK_AFTER_NS" }) |bound| {
                program.*.root_module.addCMacro(bound, "UINT64_C(3600000000000)");
            }
        }
    }
    for (programs) |program| {
        const run = std.Build.Step.Run.create(b, b.fmt("run {s}", .{program.name}));
        if (emulator) |path| run.addArg(path);
        run.addArtifactArg(program);
        // Inherited output reaches the caller also when the program succeeds, and Zig runs
        // such programs one at a time, always.
        run.stdio = .inherit;
        run.disable_zig_progress = true;
        run.addPassthruArgs();
        // Built first, all of them: a compiler beside the tests would slow their races down.
        for (programs) |other| run.step.dependOn(&other.step);
        tests.dependOn(&run.step);
    }

    const bench = b.step("bench", "Build the C benchmarks");
    bench.dependOn(all);
    for (bench_programs) |name| {
        bench.dependOn(installProgram(b, b.fmt("bench/{s}", .{name}), library));
    }
    // Once more with the library linked in: what the way through a shared library costs.
    const static = addProgram(b, "bench/subjects/pair.c", releaseModule(b, host));
    addLibrarySources(b, static.root_module);
    bench.dependOn(&b.addInstallArtifact(static, .{ .dest_sub_path = "pair_static" }).step);
}

/// The shared library that Deno and Bun open.
///
/// A query that names its architecture gets that architecture's baseline CPU, so a library
/// built here also runs on an older machine.
fn addSharedLibrary(b: *std.Build, name: []const u8, query: std.Target.Query) *Compile {
    if (query.os_tag.? != .linux) {
        const target = b.resolveTargetQuery(query);
        const module = releaseModule(b, target);
        addLibrarySources(b, module);
        module.link_libc = true;
        return b.addLibrary(.{ .name = name, .linkage = .dynamic, .root_module = module });
    }

    // On Linux one file serves glibc and musl processes. It is compiled against musl's headers
    // and linked without any libc: libc calls stay undefined, and the process that opens the
    // library already has a libc that provides them. A DT_NEEDED entry would name one libc and
    // fail under the other.
    var musl = query;
    musl.abi = .musl;
    const target = b.resolveTargetQuery(musl);

    const objects = releaseModule(b, target);
    addLibrarySources(b, objects);
    objects.pic = true;
    objects.link_libc = true; // Finds the headers. An object links nothing.

    const module = releaseModule(b, target);
    // As a file: an object step would hand its libc on to the library.
    module.addObjectFile(b.addObject(.{ .name = "dsmr", .root_module = objects }).getEmittedBin());
    const library = b.addLibrary(.{ .name = name, .linkage = .dynamic, .root_module = module });
    library.linker_allow_shlib_undefined = true;
    library.setLinkerScript(b.path("c/dsmr.ld"));
    // Zig's own runtimes stay out: they would bring their own memcpy.
    library.bundle_compiler_rt = false;
    library.bundle_ubsan_rt = false;
    return library;
}

/// Builds a program of one C file for this machine, which uses the installed library.
fn installProgram(b: *std.Build, source: []const u8, library: *Compile) *std.Build.Step {
    return linkInstalled(b, addProgram(b, source, releaseModule(b, b.graph.host)), library);
}

/// The same with musl as its libc, named `...-musl`: the one library serves that, too.
fn installMuslProgram(b: *std.Build, source: []const u8, library: *Compile) *std.Build.Step {
    const target = b.resolveTargetQuery(.{
        .cpu_arch = b.graph.host.result.cpu.arch,
        .os_tag = .linux,
        .abi = .musl,
    });
    const program = addProgram(b, source, releaseModule(b, target));
    program.linkage = .dynamic;
    program.name = b.fmt("{s}-musl", .{program.name});
    program.out_filename = program.name;
    return linkInstalled(b, program, library);
}

fn linkInstalled(b: *std.Build, program: *Compile, library: *Compile) *std.Build.Step {
    // As a file: linking the step would add a run path into .zig-cache.
    program.root_module.addObjectFile(library.getEmittedBin());
    // Relative to the program, so that the tree can be moved.
    const origin = if (b.graph.host.result.os.tag == .macos) "@loader_path" else "$ORIGIN";
    program.root_module.addRPathSpecial(b.fmt("{s}/../lib", .{origin}));
    return &b.addInstallArtifact(program, .{}).step;
}

/// A program of one C file that may include the library's headers, internal ones too.
fn addProgram(b: *std.Build, source: []const u8, module: *std.Build.Module) *Compile {
    module.addCSourceFile(.{ .file = b.path(source), .flags = cFlags(module) });
    module.addIncludePath(b.path("c"));
    module.link_libc = true;
    return b.addExecutable(.{ .name = std.fs.path.stem(source), .root_module = module });
}

fn addLibrarySources(b: *std.Build, module: *std.Build.Module) void {
    const target = module.resolved_target.?.result;
    const cold: []const []const u8 = switch (target.os.tag) {
        .linux => &linux_sources,
        .macos => &darwin_sources,
        else => |os| std.debug.panic("dsmr does not support {t}", .{os}),
    };
    const root = b.path("c");
    if (module.optimize == .debug) {
        module.addCSourceFiles(.{ .root = root, .files = cold, .flags = cFlags(module) });
        module.addCSourceFiles(.{ .root = root, .files = &hot_sources, .flags = cFlags(module) });
        return;
    }
    module.addIncludePath(root);
    const machine: []const []const u8 = if (target.os.tag != .linux) &.{} else switch (target.cpu.arch) {
        // Calls into libc go through its table of addresses at once; smaller where such a call is
        // one instruction.
        .x86_64 => &.{"-fno-plt"},
        // The library is far below the 1 MiB that one instruction can span: 1.4 % smaller. (The
        // linker says so if it were not.)
        .aarch64 => &.{"-mcmodel=tiny"},
        else => &.{},
    };
    const for_size = std.mem.concat(b.allocator, []const u8, &.{ &release_flags, &.{"-Oz"}, machine }) catch @panic("OOM");
    module.addCSourceFile(.{ .file = oneUnit(b, target.os.tag, cold), .flags = for_size });
    const for_speed = &(release_flags ++ [_][]const u8{"-O2"});
    module.addCSourceFiles(.{ .root = root, .files = &hot_sources, .flags = for_speed });
}

/// A C file that includes the given ones, and makes what they declare for each other as good as
/// static: so the compiler knows all callers, and drops and merges what a linker cannot. 5 KiB of
/// 65 go. (Zig's link-time optimisation does not work for a library without a libc.)
fn oneUnit(b: *std.Build, os: std.Target.Os.Tag, sources: []const []const u8) std.Build.LazyPath {
    const push = "#pragma clang attribute push(__attribute__((internal_linkage)), apply_to = function)\n";
    const pop = "#pragma clang attribute pop\n";
    var text: []const u8 = includes(b, &.{ "dsmr.h", "layout.h" });
    // There the hot sources need a call of it.
    if (os == .macos) text = b.fmt("{s}{s}", .{ text, includes(b, &.{"os.h"}) });
    text = b.fmt("{s}{s}{s}{s}", .{ text, push, includes(b, &internal_headers), pop });
    text = b.fmt("{s}{s}", .{ text, includes(b, &hot_headers) });
    text = b.fmt("{s}{s}", .{ text, includes(b, sources) });
    return b.addWriteFiles().add("dsmr_cold.c", text);
}

fn includes(b: *std.Build, names: []const []const u8) []const u8 {
    var text: []const u8 = "";
    for (names) |name| text = b.fmt("{s}#include \"{s}\"\n", .{ text, name });
    return text;
}

/// What users get: fast, stripped, no runtime checks.
fn releaseModule(b: *std.Build, target: ResolvedTarget) *std.Build.Module {
    return b.createModule(.{
        .target = target,
        .optimize = .fast,
        .strip = true,
        .omit_frame_pointer = true,
        .sanitize_c = .off,
    });
}

/// What the tests check: the same sources, with line numbers and perhaps a sanitizer.
fn testModule(b: *std.Build, target: ResolvedTarget, sanitize: Sanitize) *std.Build.Module {
    const module = b.createModule(.{
        .target = target,
        .optimize = .debug,
        .strip = false,
        // Zig turns a trapping UBSan on in debug builds unless told otherwise. `full` says
        // what happened and where, then ends the program.
        .sanitize_c = if (sanitize == .undefined) .full else .off,
        .sanitize_thread = sanitize == .thread,
    });
    // System calls can be made to fail.
    module.addCMacro("DSMR_FAULTS", "1");
    return module;
}

fn cFlags(module: *const std.Build.Module) []const []const u8 {
    // Races hide at -O0, where every access goes through memory in program order.
    return if (module.optimize == .debug) &(flags ++ [_][]const u8{"-O1"}) else &release_flags;
}
