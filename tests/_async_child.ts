/** The process, or the Worker, of the tests of the async forms. */

import { runAgent } from "./_async_agent.ts";

runAgent();
