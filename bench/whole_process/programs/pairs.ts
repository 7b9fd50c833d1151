import { Registry } from "../../../lib/mod.ts";

const registry = Registry.openSync("whole", { dir: "DIR" });
const { lock } = registry.getNamedSegmentSync("counters", 4096);
for (let i = 0; i < 10_000_000; i++) {
  lock.acquireSync();
  lock.release();
}
