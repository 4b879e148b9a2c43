import { authorised, projectFromEnv } from "../_shared/auth.ts";
import { inBackground, onPlatform, onUnload, surviveUnhandled } from "../_shared/background.ts";
import { createLog } from "../_shared/log.ts";
import { createProcessor } from "./handler.ts";
import { settingsFromEnv } from "./settings.ts";

const log = createLog("background-sync-processor");
const project = projectFromEnv();
const settings = settingsFromEnv();
const processor = createProcessor({
  url: project.url,
  settings,
  log,
  inBackground: (work) => inBackground(work, log),
  // The platform's limit counts from the worker's start, and a worker serves several requests.
  workerUntil: onPlatform() ? performance.now() + settings.wallClockMs : null,
});
onUnload(processor.stop, log);
const serve = authorised(project, processor.handle);

export default {
  fetch(request: Request): Promise<Response> {
    surviveUnhandled(log);
    return serve(request);
  },
};
