import { Registry } from "../../../lib/mod.ts";

const registry = Registry.openSync("whole", { dir: "DIR" });
const { lock } = registry.getNamedSegmentSync("counters", 4096);
lock.acquireSync();
lock.release();
