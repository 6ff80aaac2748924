"""The embedded benchmark: ray-cast people in the layouts of the five real aerial-ground benchmarks."""

from fastreid.rendered.contact_sheet import CONTACT_SHEET, write_contact_sheet
from fastreid.rendered.layouts import LAYOUTS, VIEW_GAPS, BenchmarkSpec, Plan, make_plan
from fastreid.rendered.manifest import MANIFEST
from fastreid.rendered.writer import write_benchmark
