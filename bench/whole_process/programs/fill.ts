import { Registry } from "../../../lib/mod.ts";

const registry = Registry.openSync("many", { dir: "DIR" });
new Uint8Array(registry.getNamedSegmentSync("large", Number("SIZE")).buffer).fill(1);
