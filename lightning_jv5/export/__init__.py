"""From a checkpoint to a folder that the next stage, and other libraries, load."""

from lightning_jv5.export.assembly import Assembled as Assembled
from lightning_jv5.export.assembly import assemble as assemble
from lightning_jv5.export.convert import Converted as Converted
from lightning_jv5.export.convert import convert as convert
from lightning_jv5.export.onnx import ExportedOnnx as ExportedOnnx
from lightning_jv5.export.onnx import export_onnx as export_onnx
from lightning_jv5.export.push import Pushed as Pushed
from lightning_jv5.export.push import push as push
from lightning_jv5.export.sentence_transformers_layout import write_sentence_transformers as write_sentence_transformers
from lightning_jv5.export.stage import Exported as Exported
from lightning_jv5.export.stage import export as export
