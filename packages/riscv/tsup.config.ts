import { library } from '../../scripts/tsup-preset.ts';

export default library(['src/index.ts', 'src/harness.ts']);
