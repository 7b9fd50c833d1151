import process from "node:process";
import { Registry } from "../../../lib/mod.ts";

const [, , dir = "", size] = process.argv;
const registry = Registry.openSync("many", { dir });
new Uint8Array(registry.getNamedSegmentSync("large", Number(size)).buffer).fill(1);
