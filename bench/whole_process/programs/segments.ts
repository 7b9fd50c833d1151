import process from "node:process";
import { Registry } from "../../../lib/mod.ts";

const [, , dir = ""] = process.argv;
const registry = Registry.openSync("many", { dir });
for (let i = 0; i < 1000; i++) registry.getNamedSegmentSync(`segment-${i}`, 4096);
