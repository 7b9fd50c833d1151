/**
 * Named shared memory for Deno and Bun processes.
 *
 * Processes that open the same registry share segments by name: the first to ask for one
 * creates and initialises it, everyone else finds it done, and all of them see the same
 * bytes. Any of them may be killed at any instruction; the others go on.
 *
 * @example
 * ```ts
 * import { Registry } from "@dsmr/registry";
 *
 * using registry = Registry.openSync("doc-mod");
 * const segment = registry.getNamedSegmentSync("counters", 4096);
 * const counters = new Int32Array(segment.buffer);
 * console.log("visit", Atomics.add(counters, 0, 1) + 1); // counts across processes
 * Registry.destroy("doc-mod");
 * ```
 *
 * @module
 */

export {
  type Addin,
  type AddinDefinition,
  type AddinHandle,
  defineAddin,
  type RequestContext,
  type StartupContext,
} from "./addins/addin.ts";
export type { ShmemRequest } from "./addins/handle.ts";
export type { AddinInitLock } from "./addins/init_lock.ts";
export type { Change } from "./changes.ts";
export { DsmrError, type DsmrErrorCode, type DsmrErrorDetails } from "./errors.ts";
export type { LockMode, Repair, VarState, WaitOptions } from "./lock_arguments.ts";
export { LWLock } from "./lwlock.ts";
export type {
  BackendInfo,
  DatabaseInfo,
  LockInfo,
  RegistryInfo,
  SegmentInfo,
  TrancheInfo,
  WaitInfo,
} from "./listing.ts";
export type { MainAreaStruct } from "./addins/main_area.ts";
export { Registry } from "./registry.ts";
export type { Scope } from "./scope.ts";
export type {
  AsyncInitCallback,
  DirectoryOptions,
  InitCallback,
  OpenOptions,
  ScopeOptions,
  SegmentRequest,
} from "./requests.ts";
export type { WordWait } from "./parking.ts";
export { type Lifetime, Segment } from "./segment.ts";
export { Signal, type SignalWaitOptions } from "./signal.ts";
export {
  type Fields,
  type Struct,
  struct,
  type StructInitOptions,
  type ValueOf,
  type View,
} from "./struct/struct.ts";
export { FieldArray, TextArray } from "./struct/arrays.ts";
export { AtomicBigint, AtomicNumber } from "./struct/atomics.ts";
export type { Field, ObjectField, ValueField } from "./struct/field.ts";
export {
  array,
  atomicI32,
  atomicI64,
  atomicU32,
  atomicU64,
  bytes,
  lwlock,
  text,
} from "./struct/fields.ts";
export { differences, type Layout } from "./struct/layout.ts";
export type { ViewTarget } from "./struct/place.ts";
export {
  bool,
  f32,
  f64,
  i16,
  i32,
  i64,
  i8,
  type ScalarField,
  u16,
  u32,
  u64,
  u8,
} from "./struct/scalars.ts";
export { Tranche } from "./tranche.ts";
export type { AsyncWaitOptions } from "./wait.ts";
export type { WebLock, WebLockOptions } from "./web_locks_arguments.ts";
export { type WebLockInfo, WebLocks, type WebLocksSnapshot } from "./web_locks.ts";
export type { WorkerContext, WorkerFunction } from "./workers/context.ts";
export { BackgroundWorker, type WorkerEnd } from "./workers/handle.ts";
export type { WorkerEvent, WorkerSpec, WorkerStartTime } from "./workers/spec.ts";
export type { WorkerInfo, WorkerState } from "./workers/view.ts";
