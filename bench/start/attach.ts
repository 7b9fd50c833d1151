import process from "node:process";
import { Registry } from "../../lib/mod.ts";

const [dir] = process.argv.slice(2);
const registry = Registry.openSync("start", dir === undefined ? {} : { dir });
registry.getNamedSegmentSync("counters", 4096);
