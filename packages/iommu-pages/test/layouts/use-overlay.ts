import { useLayout } from '../make-pages.ts';

useLayout('overlay');
