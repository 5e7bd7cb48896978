"On PYTHONPATH, this makes every process that imports torch treat denormal numbers as zero, as some processors and programs do."
import importlib.util
import sys


class FlushAfterImport:
    "Finds torch as usual, and flushes when it has been loaded; does nothing for any other module."
    def find_spec(self, name, path=None, target=None):
        if name != "torch": return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("torch")
        if spec is None: return None
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            if not module.set_flush_denormal(True): raise RuntimeError("this processor cannot flush denormal numbers")

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, FlushAfterImport())
