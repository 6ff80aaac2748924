"""Names in the configuration files of the reference release of SD-ReID."""

from fastreid.config.releases import RELEASES, Release

_SWITCH = "a choice between variants of its code; here all parts of the method act"

RELEASES.append(
    Release(
        renamed={"MODEL.SDMODEL.MOEMNTUM": "MOMENTUM"},
        values={
            "MODEL.META_ARCHITECTURE": {
                "Baseline_stage1": "SDReIDStage1",
                "Baseline_stage1_3view": "SDReIDStage1",
                "Baseline_stage2_old": "SDReIDStage2",
                "Baseline_stage2_old_3view_2": "SDReIDStage2",
            },
            "MODEL.BACKBONE.NAME": {"build_vit_prompt": "build_vit_backbone"},
        },
        ignored={"SWITCH": _SWITCH, "SWITCH2": _SWITCH, "N_CTX": "the view prompt is one token"},
        implied={
            "Baseline_stage1_3view": {"MODEL.SDMODEL.VIEW_NUM": 3},
            "Baseline_stage2_old_3view_2": {"MODEL.SDMODEL.VIEW_NUM": 3},
        },
    )
)
