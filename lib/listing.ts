/**
 * What is where: registries, segments, backends, locks and tranches, as they are listed.
 *
 * @module
 */

import type { DsmrErrorCode } from "./errors.ts";
import { native, readAll } from "./ffi/native.ts";
import type { Record } from "./ffi/record.ts";
import type { LockMode } from "./lock_arguments.ts";
import type { Scope } from "./scope.ts";
import type { Lifetime } from "./segment.ts";

/** A registry, as {@linkcode Registry.list} sees it. */
export interface RegistryInfo {
  /** Its name. */
  name: string;
  /** The directory that it is in. */
  dir: string;
  /** Why it cannot be attached (`"CORRUPT"`, `"VERSION_MISMATCH"`), or null. */
  problem: DsmrErrorCode | null;
  /** Bytes of the control region; the segments' come on top. */
  size: number;
  /** When it was created. */
  createdAt: Date;
  /** The process that created it, if it still exists. */
  creatorPid: number;
  /** Live backends. */
  backends: number;
  /** How many fit. */
  maxBackends: number;
  /** Segments, also those being initialised. */
  segments: number;
  /** How many fit. */
  maxSegments: number;
}

/** A segment, as {@linkcode Registry.segments} sees it. */
export interface SegmentInfo {
  /** Its name. */
  name: string;
  /** Its number: never given twice in a registry. */
  id: number;
  /** Whose name it is. */
  scope: Scope;
  /** The database whose name it is, or null: it is global. */
  database: string | null;
  /** Its size in bytes. */
  size: number;
  /** The hash of the layout that it was made with, in 16 hexadecimal digits, or null. */
  layout: string | null;
  /** False while it is being initialised. */
  ready: boolean;
  /** How long it stays. */
  lifetime: Lifetime;
  /** How many backends have it attached. */
  backends: number;
  /** When its initialisation began. */
  createdAt: Date;
  /** The process that initialised it, if it still exists. */
  creatorPid: number;
}

/** A database, as {@linkcode Registry.databases} sees it. */
export interface DatabaseInfo {
  /** Its name. */
  name: string;
  /** Its number: never given twice in a registry, also when the name is used again. */
  id: number;
  /** When it was first opened. */
  createdAt: Date;
  /** Live backends that have it open. */
  backends: number;
  /** Segments of its own. */
  segments: number;
}

/** A backend, as {@linkcode Registry.backends} sees it: an attached thread of some process. */
export interface BackendInfo {
  /** Its number in the registry; see {@linkcode Registry.backendId}. */
  id: number;
  /** Its process, in that process's pid namespace. */
  pid: number;
  /** Its thread, likewise. */
  tid: number;
  /** What program it is, for example `"deno 2.9.6"`; empty where it did not say. */
  program: string;
  /** The database that it has opened; empty if that is not there (any more). */
  database: string;
  /** When it attached. */
  attachedAt: Date;
  /** How many segments it has attached. */
  segments: number;
  /** The segment whose initialisation it is waiting for, or null. */
  waitingFor: string | null;
  /** Whether it is the one that asks. */
  self: boolean;
  /** The locks that it holds. */
  held: LockInfo[];
  /** The lock that it waits for, or null. */
  waitsFor: LockInfo | null;
}

/** A lock that a backend holds or waits for. */
export interface LockInfo {
  /** The lock's tranche; that of a segment's own lock has the segment's name. */
  tranche: string;
  /** The segment that it is in. */
  segment: string;
  /** Where in the segment; null for the lock that the segment carries. */
  byteOffset: number | null;
  /** How it is held, or to be held. */
  mode: LockMode;
  /** Since when it is waited for. What is held has null: noting that down would cost more than
   * the lock. */
  since: Date | null;
}

/** A wait, as {@linkcode Registry.waits} sees it. */
export interface WaitInfo extends LockInfo {
  /** The backend that waits; see {@linkcode Registry.backendId}. */
  backend: number;
  /** Its process. */
  pid: number;
  /** The backends that hold the lock. */
  holders: number[];
}

/** A tranche, as {@linkcode Registry.tranches} sees it. */
export interface TrancheInfo {
  /** Its name. */
  name: string;
  /** Its number, or null for that of a segment's own lock. */
  id: number | null;
  /** Acquisitions that had to wait. */
  contended: number;
  /** How long they waited, together, in milliseconds. */
  waited: number;
  /** How often an exclusive holder died inside. */
  abandoned: number;
}

/** The registries in a directory, by name. */
export function listRegistries(dir: string): RegistryInfo[] {
  const { calls, error } = native();
  const path = new TextEncoder().encode(dir);
  const { infos, count } = readAll(
    "dsmr_registry_info",
    (infos, capacity) => calls.dsmr_registry_list(path, path.length, infos, capacity, error.bytes),
  );
  return Array.from({ length: count }, (_, i) => registryInfo(infos, i, dir)).sort(byName);
}

type Listing =
  | "dsmr_segments"
  | "dsmr_backends"
  | "dsmr_databases"
  | "dsmr_locks"
  | "dsmr_tranches";

/** What one call lists of a registry, each line made by `info`. */
function list<Info>(
  handle: number,
  call: Listing,
  structure: string,
  info: (infos: Record, i: number) => Info,
): Info[] {
  const { calls, error } = native();
  const { infos, count } = readAll(
    structure,
    (infos, capacity) => calls[call](handle, infos, capacity, error.bytes),
  );
  return Array.from({ length: count }, (_, i) => info(infos, i));
}

/** The segments of a registry, by name. */
export function listSegments(handle: number): SegmentInfo[] {
  const all = list(handle, "dsmr_segments", "dsmr_segment_info", segmentInfo);
  const names = new Map(listDatabases(handle).map(({ id, name }) => [id, name]));
  const found: SegmentInfo[] = [];
  for (const { databaseId, ...info } of all) {
    if (isOwnName(info.name)) continue;
    const database = names.get(databaseId) ?? null;
    // Of a database that is gone since: so is the segment.
    if (databaseId !== 0 && database === null) continue;
    found.push({ ...info, database });
  }
  return found.sort(byName);
}

/** A database without what only other listings tell. */
export type DatabaseName = Pick<DatabaseInfo, "name" | "id" | "createdAt">;

/** The databases of a registry, by name. */
export function listDatabases(handle: number): DatabaseName[] {
  return list(handle, "dsmr_databases", "dsmr_database_info", databaseInfo).sort(byName);
}

/** The same with what is in them. */
export function countDatabases(handle: number): DatabaseInfo[] {
  const segments = list(handle, "dsmr_segments", "dsmr_segment_info", segmentInfo);
  const backends = list(handle, "dsmr_backends", "dsmr_backend_info", databaseIdOfBackend);
  return listDatabases(handle).map((database) => ({
    ...database,
    backends: backends.filter((id) => id === database.id).length,
    segments:
      segments.filter(({ databaseId, name }) => databaseId === database.id && !isOwnName(name))
        .length,
  }));
}

function databaseIdOfBackend(infos: Record, i: number): number {
  return infos.u32("database_id", i);
}

function databaseInfo(infos: Record, i: number): DatabaseName {
  return {
    name: infos.text("name", infos.u32("name_length", i), i),
    id: infos.u32("id", i),
    createdAt: dateOf(infos.u64("created_ns", i)),
  };
}

/** Whether a segment is the library's own, which users do not see. */
export function isOwnName(name: string): boolean {
  return name.startsWith("\u0001");
}

/** The live backends of a registry, with their locks. */
export function listBackends(handle: number): BackendInfo[] {
  const backends = list(handle, "dsmr_backends", "dsmr_backend_info", backendInfo);
  const locks = listLocks(handle);
  return backends.map((backend) => {
    const own = locks.filter((lock) => lock.backend === backend.id);
    return {
      ...backend,
      held: own.filter((lock) => !lock.waiting).map((lock) => lock.info),
      waitsFor: own.find((lock) => lock.waiting)?.info ?? null,
    };
  });
}

/** Who waits for a lock, and who holds it. */
export function listWaits(handle: number): WaitInfo[] {
  const locks = listLocks(handle);
  return locks.filter((lock) => lock.waiting).map((lock) => ({
    ...lock.info,
    backend: lock.backend,
    pid: lock.pid,
    holders: locks
      .filter((other) => !other.waiting && other.key === lock.key)
      .map((other) => other.backend),
  }));
}

/** The tranches of a registry. */
export function listTranches(handle: number): TrancheInfo[] {
  const all = list(handle, "dsmr_tranches", "dsmr_tranche_info", trancheInfo);
  return all.filter(({ name }) => !isOwnName(name));
}

function listLocks(handle: number): Lock[] {
  return list(handle, "dsmr_locks", "dsmr_lock_info", lockInfo);
}

function byName(a: { name: string }, b: { name: string }): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}

const dateOf = (nanoseconds: number): Date => new Date(nanoseconds / 1e6);

function registryInfo(infos: Record, i: number, dir: string): RegistryInfo {
  return {
    name: infos.text("name", infos.u32("name_length", i), i),
    dir,
    problem: native().codeOf.get(infos.i32("status", i)) ?? null,
    size: infos.u64("size", i),
    createdAt: dateOf(infos.u64("created_ns", i)),
    creatorPid: infos.u32("creator_pid", i),
    backends: infos.u32("backend_count", i),
    maxBackends: infos.u32("backend_count_max", i),
    segments: infos.u32("segment_count", i),
    maxSegments: infos.u32("segment_count_max", i),
  };
}

function segmentInfo(
  infos: Record,
  i: number,
): Omit<SegmentInfo, "database"> & { databaseId: number } {
  const layout = infos.big("layout", i);
  const databaseId = infos.u32("database_id", i);
  const attached = native().number("DSMR_LIFETIME_ATTACHED");
  return {
    name: infos.text("name", infos.u32("name_length", i), i),
    id: infos.u64("id", i),
    databaseId,
    scope: databaseId === 0 ? "global" : "database",
    size: infos.u64("size", i),
    layout: layout === 0n ? null : layout.toString(16).padStart(16, "0"),
    ready: infos.u32("is_ready", i) === 1,
    lifetime: infos.u32("lifetime", i) === attached ? "attached" : "registry",
    backends: infos.u32("backend_count", i),
    createdAt: dateOf(infos.u64("created_ns", i)),
    creatorPid: infos.u32("creator_pid", i),
  };
}

/** One line of what the library lists of locks. */
interface Lock {
  backend: number;
  pid: number;
  waiting: boolean;
  /** Which lock: the same for all who hold it or wait for it. */
  key: string;
  info: LockInfo;
}

function lockInfo(infos: Record, i: number): Lock {
  const segment = infos.text("segment", infos.u32("segment_length", i), i);
  const offset = infos.big("offset", i);
  const since = infos.u64("since_ns", i);
  return {
    backend: infos.u32("backend_id", i),
    pid: infos.u32("pid", i),
    waiting: infos.u32("is_waiting", i) === 1,
    key: `${segment}\0${offset}`,
    info: {
      tranche: infos.text("tranche", infos.u32("tranche_length", i), i),
      segment,
      byteOffset: offset === 0xffffffffffffffffn ? null : Number(offset),
      mode: infos.u32("mode", i) === native().number("DSMR_SHARED") ? "shared" : "exclusive",
      since: since === 0 ? null : dateOf(since),
    },
  };
}

function trancheInfo(infos: Record, i: number): TrancheInfo {
  const id = infos.u32("id", i);
  return {
    name: infos.text("name", infos.u32("name_length", i), i),
    id: id === 0 ? null : id,
    contended: infos.u64("contended", i),
    waited: infos.u64("waited_ns", i) / 1e6,
    abandoned: infos.u64("abandoned", i),
  };
}

function backendInfo(infos: Record, i: number): Omit<BackendInfo, "held" | "waitsFor"> {
  const waiting = infos.u32("waiting_length", i);
  return {
    id: infos.u32("backend_id", i),
    pid: infos.u32("pid", i),
    tid: infos.u32("tid", i),
    program: infos.text("label", infos.u32("label_length", i), i),
    database: infos.text("database", infos.u32("database_length", i), i),
    attachedAt: dateOf(infos.u64("attached_ns", i)),
    segments: infos.u32("segment_count", i),
    waitingFor: waiting === 0 ? null : infos.text("waiting", waiting, i),
    self: infos.u32("is_self", i) === 1,
  };
}
