"""What the two attention decoders share: embedded cells, attention, gate and the initial state.

Dimensions: L layers, B images, K captions or W beams an image, P grid cells, D embedding width, E encoder width,
H hidden width.
"""

from torch import Tensor, nn

from imgcap.config.model import AttentionLSTMConfig
from imgcap.models.decoders.attention import ATTENTION
from imgcap.models.decoders.lstm_stack import LSTMStackDecoder, initialise_output
from imgcap.models.kernels.dtypes import compute_dtype, exact_dtype
from imgcap.models.kernels.linear import Linear


class AttendingDecoder(LSTMStackDecoder):
    """An LSTM decoder that looks at the cells of the image; a subclass says when.

    - `init_state: mean`: h_0 and c_0 of each layer are tanh(Linear(mean of the cells)), the paper's f_init
      (section 3.1.2) with the one tanh layer of the authors' code. `zeros` has no parameters.
    - `gate`: the context is scaled by beta = sigmoid(Linear(h)), one value for each of its E entries rather
      than the paper's single one (section 4.2.1).
    - `feature_dim`: the cells are first embedded, by a linear layer, ReLU and dropout; E is then this width.
    """

    attends = True
    reads_context: bool  # the first cell reads [word; context], not the word alone

    def __init__(self, config: AttentionLSTMConfig, vocabulary_size: int, encoder_width: int):
        cell_width, encoder_width = encoder_width, config.feature_dim or encoder_width
        super().__init__(config, vocabulary_size, config.embed_dim + encoder_width * self.reads_context)
        self.embed_features = Linear(cell_width, encoder_width) if config.feature_dim else None
        self.attention = ATTENTION[config.attention](encoder_width, config.hidden_dim, config.attention_dim)
        self.gate = Linear(config.hidden_dim, encoder_width) if config.gate else None
        mean, states = config.init_state == "mean", config.layers * config.hidden_dim
        self.init_hidden = Linear(encoder_width, states) if mean else None
        self.init_cell = Linear(encoder_width, states) if mean else None
        self.deep = config.output == "deep"
        read_width = config.embed_dim if self.deep else config.hidden_dim
        reads_both = self.deep or not self.reads_context
        self.output_hidden = Linear(config.hidden_dim, read_width, bias=False) if reads_both else None
        self.output_context = Linear(encoder_width, read_width, bias=False) if reads_both else None
        self.output = Linear(read_width, vocabulary_size)
        initialise_output(self.output)

    def look(self, features_BPE: Tensor) -> tuple[Tensor, Tensor]:
        """Embed the grid cells where `feature_dim` says so; return features_BPE, and projected_BPA for attention."""
        features_BPE = features_BPE.to(compute_dtype(self.attention.query.weight))
        if self.embed_features is not None:
            features_BPE = self.dropout(self.embed_features(features_BPE).relu())
        return features_BPE, self.attention.features(features_BPE)

    def begin(self, features_BPE: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Initial hidden and cell states (L, B, rows, H) of all layers, from the mean of the cells or zero."""
        layers, images, exact = len(self.cells), features_BPE.shape[0], exact_dtype(features_BPE.dtype)
        if self.init_hidden is None or self.init_cell is None:
            zeros_LBKH = features_BPE.new_zeros(layers, images, rows, self.hidden_dim)
            return zeros_LBKH, zeros_LBKH.to(exact)
        mean_BE = features_BPE.mean(1)

        def project(layer: nn.Linear) -> Tensor:
            state_LBH = layer(mean_BE).tanh().view(images, layers, self.hidden_dim).transpose(0, 1)
            return state_LBH[:, :, None].expand(-1, -1, rows, -1)

        return project(self.init_hidden).to(features_BPE.dtype), project(self.init_cell).to(exact)
