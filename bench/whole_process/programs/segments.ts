import { Registry } from "../../../lib/mod.ts";

const registry = Registry.openSync("many", { dir: "DIR" });
for (let i = 0; i < 1000; i++) registry.getNamedSegmentSync(`segment-${i}`, 4096);
