import process from "node:process";
import { Registry } from "../../../lib/mod.ts";

const [, , dir = ""] = process.argv;
Registry.openSync("whole", { dir });
