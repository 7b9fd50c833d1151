/**
 * The calls of the native library, once, for every runtime: see c/dsmr.h, which is the
 * contract. A test compares the two.
 *
 * Only types that both runtimes pass without boxing: u32 and i32 by value, the rest through
 * byte buffers. Every call returns an int32_t.
 *
 * @module
 */

/** How an argument is passed. */
export type Parameter = "u32" | "i32" | "buffer";

/** Name and parameters of every call. The C prototype stands above each. */
export const symbols = {
  // int32_t dsmr_abi(char *text, uint32_t capacity)
  dsmr_abi: ["buffer", "u32"],
  // int32_t dsmr_default_directory(char *directory, uint32_t capacity, dsmr_error *error)
  dsmr_default_directory: ["buffer", "u32", "buffer"],
  // int32_t dsmr_registry_open(const char *name, uint32_t name_length,
  //                            const char *directory, uint32_t directory_length,
  //                            const char *database, uint32_t database_length,
  //                            const dsmr_registry_options *options, dsmr_error *error)
  dsmr_registry_open: ["buffer", "u32", "buffer", "u32", "buffer", "u32", "buffer", "buffer"],
  // int32_t dsmr_registry_close(uint32_t registry)
  dsmr_registry_close: ["u32"],
  // int32_t dsmr_registry_is_usable(uint32_t registry)
  dsmr_registry_is_usable: ["u32"],
  // int32_t dsmr_registry_patience(uint32_t registry, int32_t timeout_ms)
  dsmr_registry_patience: ["u32", "i32"],
  // int32_t dsmr_registry_describe(uint32_t registry, dsmr_registry_info *info,
  //                                dsmr_error *error)
  dsmr_registry_describe: ["u32", "buffer", "buffer"],
  // int32_t dsmr_registry_list(const char *directory, uint32_t directory_length,
  //                            dsmr_registry_info *infos, uint32_t capacity,
  //                            dsmr_error *error)
  dsmr_registry_list: ["buffer", "u32", "buffer", "u32", "buffer"],
  // int32_t dsmr_registry_destroy(const char *name, uint32_t name_length,
  //                               const char *directory, uint32_t directory_length,
  //                               dsmr_error *error)
  dsmr_registry_destroy: ["buffer", "u32", "buffer", "u32", "buffer"],
  // int32_t dsmr_backends(uint32_t registry, dsmr_backend_info *infos, uint32_t capacity,
  //                       dsmr_error *error)
  dsmr_backends: ["u32", "buffer", "u32", "buffer"],
  // int32_t dsmr_backend_is_alive(uint32_t registry, uint32_t backend_id)
  dsmr_backend_is_alive: ["u32", "u32"],
  // int32_t dsmr_databases(uint32_t registry, dsmr_database_info *infos, uint32_t capacity,
  //                        dsmr_error *error)
  dsmr_databases: ["u32", "buffer", "u32", "buffer"],
  // int32_t dsmr_database_drop(uint32_t registry, const char *name, uint32_t name_length,
  //                            dsmr_error *error)
  dsmr_database_drop: ["u32", "buffer", "u32", "buffer"],
  // int32_t dsmr_segment_begin(uint32_t registry, const char *name, uint32_t name_length,
  //                            const dsmr_segment_request *request,
  //                            dsmr_segment_ticket *ticket, dsmr_error *error)
  dsmr_segment_begin: ["u32", "buffer", "u32", "buffer", "buffer", "buffer"],
  // int32_t dsmr_segment_wait(uint32_t registry, const char *name, uint32_t name_length,
  //                           const dsmr_segment_request *request,
  //                           const dsmr_segment_ticket *ticket, dsmr_error *error)
  dsmr_segment_wait: ["u32", "buffer", "u32", "buffer", "buffer", "buffer"],
  // int32_t dsmr_segment_commit(uint32_t segment, dsmr_error *error)
  dsmr_segment_commit: ["u32", "buffer"],
  // int32_t dsmr_segment_abort(uint32_t segment, dsmr_error *error)
  dsmr_segment_abort: ["u32", "buffer"],
  // int32_t dsmr_segment_lookup(uint32_t registry, const char *name, uint32_t name_length,
  //                             uint32_t scope, dsmr_segment_ticket *ticket,
  //                             dsmr_error *error)
  dsmr_segment_lookup: ["u32", "buffer", "u32", "u32", "buffer", "buffer"],
  // int32_t dsmr_segment_detach(uint32_t segment)
  dsmr_segment_detach: ["u32"],
  // int32_t dsmr_segment_park(uint32_t segment)
  dsmr_segment_park: ["u32"],
  // int32_t dsmr_segment_drop(uint32_t registry, const char *name, uint32_t name_length,
  //                           uint32_t scope, dsmr_error *error)
  dsmr_segment_drop: ["u32", "buffer", "u32", "u32", "buffer"],
  // int32_t dsmr_segment_is_current(uint32_t segment)
  dsmr_segment_is_current: ["u32"],
  // int32_t dsmr_segments(uint32_t registry, dsmr_segment_info *infos, uint32_t capacity,
  //                       dsmr_error *error)
  dsmr_segments: ["u32", "buffer", "u32", "buffer"],
  // int32_t dsmr_lock_of_segment(uint32_t segment, dsmr_error *error)
  dsmr_lock_of_segment: ["u32", "buffer"],
  // int32_t dsmr_lock_at(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
  //                      dsmr_error *error)
  dsmr_lock_at: ["u32", "u32", "u32", "buffer"],
  // int32_t dsmr_lock_init(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
  //                        uint32_t tranche, dsmr_error *error)
  dsmr_lock_init: ["u32", "u32", "u32", "u32", "buffer"],
  // int32_t dsmr_lock_try(uint32_t lock, uint32_t mode)
  dsmr_lock_try: ["u32", "u32"],
  // int32_t dsmr_lock_acquire(uint32_t lock, uint32_t mode, int32_t timeout_ms)
  dsmr_lock_acquire: ["u32", "u32", "i32"],
  // int32_t dsmr_lock_acquire_or_wait(uint32_t lock, uint64_t *started_ns,
  //                                   int32_t timeout_ms)
  dsmr_lock_acquire_or_wait: ["u32", "buffer", "i32"],
  // int32_t dsmr_lock_cancel(uint32_t lock)
  dsmr_lock_cancel: ["u32"],
  // int32_t dsmr_lock_release(uint32_t lock)
  dsmr_lock_release: ["u32"],
  // int32_t dsmr_lock_release_all(uint32_t registry)
  dsmr_lock_release_all: ["u32"],
  // int32_t dsmr_lock_mark_consistent(uint32_t lock)
  dsmr_lock_mark_consistent: ["u32"],
  // int32_t dsmr_lock_state(uint32_t lock)
  dsmr_lock_state: ["u32"],
  // int32_t dsmr_lock_update_variable(uint32_t lock, uint32_t offset_low,
  //                                   uint32_t offset_high, const uint64_t *value,
  //                                   uint32_t release_too)
  dsmr_lock_update_variable: ["u32", "u32", "u32", "buffer", "u32"],
  // int32_t dsmr_lock_wait_for_variable(uint32_t lock, uint32_t offset_low,
  //                                     uint32_t offset_high, uint64_t *value,
  //                                     uint64_t *started_ns, int32_t timeout_ms)
  dsmr_lock_wait_for_variable: ["u32", "u32", "u32", "buffer", "buffer", "i32"],
  // int32_t dsmr_lock_explain(uint32_t lock, int32_t status, int32_t timeout_ms,
  //                           dsmr_error *error)
  dsmr_lock_explain: ["u32", "i32", "i32", "buffer"],
  // int32_t dsmr_locks(uint32_t registry, dsmr_lock_info *infos, uint32_t capacity,
  //                    dsmr_error *error)
  dsmr_locks: ["u32", "buffer", "u32", "buffer"],
  // int32_t dsmr_tranche_new(uint32_t registry, const char *name, uint32_t name_length,
  //                          uint32_t segment, dsmr_error *error)
  dsmr_tranche_new: ["u32", "buffer", "u32", "u32", "buffer"],
  // int32_t dsmr_tranche_drop(uint32_t registry, uint32_t tranche, dsmr_error *error)
  dsmr_tranche_drop: ["u32", "u32", "buffer"],
  // int32_t dsmr_tranches(uint32_t registry, dsmr_tranche_info *infos, uint32_t capacity,
  //                       dsmr_error *error)
  dsmr_tranches: ["u32", "buffer", "u32", "buffer"],
  // int32_t dsmr_doorbell(dsmr_error *error)
  dsmr_doorbell: ["buffer"],
  // int32_t dsmr_doorbell_answer(uint32_t *ids, uint32_t capacity)
  dsmr_doorbell_answer: ["buffer", "u32"],
  // int32_t dsmr_watch_end(uint32_t watch)
  dsmr_watch_end: ["u32"],
  // int32_t dsmr_lock_watch(uint32_t lock, uint32_t mode)
  dsmr_lock_watch: ["u32", "u32"],
  // int32_t dsmr_lock_watch_variable(uint32_t lock, uint32_t offset_low,
  //                                  uint32_t offset_high, uint64_t *value)
  dsmr_lock_watch_variable: ["u32", "u32", "u32", "buffer"],
  // int32_t dsmr_word_wait(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
  //                        uint32_t expected, int32_t timeout_ms)
  dsmr_word_wait: ["u32", "u32", "u32", "u32", "i32"],
  // int32_t dsmr_word_wake(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
  //                        uint32_t count)
  dsmr_word_wake: ["u32", "u32", "u32", "u32"],
  // int32_t dsmr_word_watch(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
  //                         uint32_t expected)
  dsmr_word_watch: ["u32", "u32", "u32", "u32"],
  // int32_t dsmr_segment_reserve(uint32_t registry, uint32_t size_low, uint32_t size_high,
  //                              uint32_t gives_up)
  dsmr_segment_reserve: ["u32", "u32", "u32", "u32"],
  // int32_t dsmr_segment_watch(uint32_t registry, const dsmr_segment_ticket *ticket,
  //                            dsmr_error *error)
  dsmr_segment_watch: ["u32", "buffer", "buffer"],
  // int32_t dsmr_registry_watch(uint32_t registry, uint32_t *seen, dsmr_error *error)
  dsmr_registry_watch: ["u32", "buffer", "buffer"],
} as const satisfies Record<string, readonly Parameter[]>;

type Argument<P> = P extends "buffer" ? Uint8Array<ArrayBuffer> : number;
type Arguments<P extends readonly Parameter[]> = { -readonly [I in keyof P]: Argument<P[I]> };

/** The calls, typed from the table. */
export type Calls = {
  readonly [Name in keyof typeof symbols]: (
    ...values: Arguments<(typeof symbols)[Name]>
  ) => number;
};

/** A doorbell being listened to. */
export interface Listener {
  /** Keeps the program alive, or not. */
  hold(isHeld: boolean): void;
}

/** How a runtime's program runs a module as a process. */
export interface ModuleCommand {
  /** The program's name, to be found on the PATH. */
  program: string;
  /** An environment variable that names it instead. */
  variable: string;
  /** What comes before the module, always. */
  run: readonly string[];
  /** What comes after that, unless the user says something else. */
  permissions: readonly string[];
}

/** A library that is not ours. */
export interface OtherLibrary<Name extends string> {
  /** The low 32 bits of whatever each returns. */
  readonly calls: { readonly [_ in Name]: (...args: (number | Uint8Array)[]) => number };
  /** Lets go of it. The calls must not be used after that. */
  close(): void;
}

/** What a runtime must offer. `deno.ts` and `bun.ts` are the two that do. */
export interface Runtime {
  /** Which one it is. */
  readonly name: "deno" | "bun";
  /** Name and version, for people who look at who is attached. */
  readonly label: string;
  /** The system and the processor, as Node names them: "linux", "x64". */
  readonly platform: string;
  readonly arch: string;
  /** This process. */
  readonly pid: number;
  /** Whether the program was compiled into a single file: then the runtime runs nothing else. */
  readonly isSingleFile: boolean;
  /**
   * Opens the library at an absolute path, or one that is loaded by its name. Throws what the
   * runtime throws. The path must mean the same library for as long as the calls are used.
   */
  open(path: string): Calls;
  /** Opens any library, as dlopen() finds it, for a few calls of it. Throws the same. */
  openOther<Name extends string>(
    path: string,
    table: { readonly [_ in Name]: readonly (Parameter | "usize")[] },
  ): OtherLibrary<Name>;
  /**
   * The memory at `address` as an ArrayBuffer: nothing is copied, and never freed. Throws a
   * RangeError if it cannot make one so large, something else if it is not allowed to.
   */
  view(address: bigint, byteLength: number): ArrayBuffer;
  /**
   * Calls `ring` whenever bytes have come on a socket's descriptor, `gone` when it can be
   * listened to no more. Does not keep the program alive until told so.
   */
  listen(descriptor: number, ring: () => void, gone: (cause: unknown) => void): Promise<Listener>;
  /** What to do where `view` is not allowed: a sentence. */
  readonly permissionAdvice: string;
  /** An environment variable; undefined also where the program may not read it. */
  environment(name: string): string | undefined;
}
