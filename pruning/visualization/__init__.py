"""The figures. Each has a function that gathers numpy arrays, `*_data`, and one that draws them, `*_figure`.

No torch is needed: everything is read from a run on disk or computed from its stored statistics. In a
notebook one call is enough:

from pruning import RunStore, visualization
visualization.importance(RunStore().all()[0]).show()
"""

from pruning.visualization.channels import channel_domains_figure, channel_rank_figure, layer_figure
from pruning.visualization.cut import Cut, cut_data, cut_figure, cut_map, cut_title, massive
from pruning.visualization.domains import (
    Agreement,
    agreement_data,
    agreement_figure,
    mixture_figure,
    overlap_figure,
)
from pruning.visualization.heatmaps import (
    SCALINGS,
    Heatmap,
    Scaling,
    View,
    animation_bins,
    animation_figure,
    binned,
    colour_limits,
    importance_data,
    importance_figure,
)
from pruning.visualization.masks import (
    CATEGORIES,
    CATEGORY_COLOURS,
    comparison_data,
    comparison_figure,
    kept_share_data,
    kept_share_figure,
    kept_title,
    mask_map_data,
    mask_map_figure,
    parameters_data,
    parameters_figure,
)
from pruning.visualization.notebook import importance, mask_map, perplexity
from pruning.visualization.outcomes import (
    accuracy_figure,
    accuracy_levels_figure,
    domain_cost_figure,
    experiment_figure,
    perplexity_data,
    perplexity_figure,
    retention_figure,
    tradeoff_figure,
)
from pruning.visualization.pipeline import Pipeline, pipeline_data, pipeline_svg, pipeline_words
from pruning.visualization.sensitivity import (
    Sensitivity,
    layer_sensitivity_figure,
    prediction_figure,
    sensitivity_data,
    sensitivity_figure,
)
from pruning.visualization.style import MAX_FRAMES, MAX_POINTS, Aggregate, site_names, site_style, style
