/**
 * Waits on words and signals that stand in the registry's table: in which order they got there is
 * the order in which they are told. That a process has begun to wait says little, for on a busy
 * machine it may find the table's lock taken, and gets there later.
 *
 * @module
 */

import { Backend } from "../lib/backend.ts";
import { type Scene, until } from "./_scene.ts";

/** Until so many waits are parked in registry "test", whosever they are. */
export async function untilParked(scene: Scene, count: number): Promise<void> {
  const backend = Backend.open(scene.dir, "test", "default", {
    mode: "attach",
    maxBackends: 0,
    maxSegments: 0,
    timeout_ms: 1000,
  });
  try {
    await until(() => backend.parking.sweep().parked === count);
  } finally {
    backend.release();
  }
}
