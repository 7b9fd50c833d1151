/**
 * What is below the API: the library's own handles, and the clock of the whole machine.
 *
 * @module
 */

import process from "node:process";
import { native } from "../../lib/ffi/native.ts";

/**
 * Registry "lock" in `dir` and its segment "data", of 4096 bytes, by the library's own calls:
 * what the API is built on.
 */
export function openBelowTheApi(
  dir: string,
): { begin: () => bigint; segmentHandle: number; lockHandle: number } {
  const { record, calls, runtime } = native();
  const encoder = new TextEncoder();
  const name = encoder.encode("lock");
  const directory = encoder.encode(dir);
  const database = encoder.encode("default");
  const segment = encoder.encode("data");
  const error = record("dsmr_error").bytes;
  const options = record("dsmr_registry_options");
  options.setU32("timeout_ms", 10_000);
  options.setText("label", runtime.label);
  const request = record("dsmr_segment_request");
  request.setU64("size", 4096);
  request.setU32("timeout_ms", 10_000);
  const ticket = record("dsmr_segment_ticket");
  const handle = calls.dsmr_registry_open(
    name,
    name.length,
    directory,
    directory.length,
    database,
    database.length,
    options.bytes,
    error,
  );
  const begin = (): bigint => {
    ticket.bytes.fill(0);
    const status = calls.dsmr_segment_begin(
      handle,
      segment,
      segment.length,
      request.bytes,
      ticket.bytes,
      error,
    );
    if (status !== 0) throw new Error(`dsmr_segment_begin: ${status}`);
    return ticket.big("started_ns");
  };
  if (handle < 0) throw new Error(`dsmr_registry_open: ${handle}`);
  begin();
  const segmentHandle = ticket.u32("segment");
  const lockHandle = calls.dsmr_lock_of_segment(segmentHandle, error);
  if (lockHandle < 0) throw new Error(`dsmr_lock_of_segment: ${lockHandle}`);
  return { begin, segmentHandle, lockHandle };
}

/**
 * What to add to process.hrtime.bigint(), which counts from the start of the process, to get
 * CLOCK_MONOTONIC. The library notes the latter down when one begins to ask for a segment.
 */
export function clockOffset(dir: string): bigint {
  const { begin } = openBelowTheApi(dir);
  let shortest = Infinity;
  let offset = 0n;
  for (let i = 0; i < 2000; i++) {
    const before = process.hrtime.bigint();
    const monotonic = begin();
    const took = Number(process.hrtime.bigint() - before);
    // Where a clock went backwards, nothing can be learnt.
    if (took > 0 && took < shortest) [shortest, offset] = [took, monotonic - before];
  }
  return offset;
}
