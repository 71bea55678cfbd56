/* The program that converts weights between file formats and between the tensor
 * names of other programs. */

#include "src/convert/convert.h"
#include "src/convert/naming.h"
#include "src/programs/program.h"

static const mm_option rows[] = {
    {.name = "model",
     .kind = MM_OPTION_TEXT,
     .value = "NAME",
     .help = "model configuration, a built-in name or open_clip's JSON file, "
             "where IN does not record one; another image size resizes the "
             "positions"},
    {.name = "names",
     .kind = MM_OPTION_CHOICE,
     .value = "WHOSE",
     .fallback = "open_clip",
     .choices = MM_NAMINGS,
     .help = "names of the tensors in a .safetensors file"},
    {.name = "dtype",
     .kind = MM_OPTION_CHOICE,
     .value = "TYPE",
     .choices = "f32,f16,bf16",
     .help = "number type in a .safetensors file (default: f32)"},
    {.name = "with",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .help = "weights of the same model that supply the tensors missing in IN, "
             "such as the text tower"},
    MM_ROW_RANK_TIMEOUT,
};

static const mm_option_table table = {
    .program = "magmax_convert",
    .purpose = "Convert weights: IN is HDF5, safetensors (also an index.json "
               "of several) or PyTorch's, under the names of open_clip, "
               "OpenAI or Hugging Face; OUT is a .h5 or .safetensors file",
    .operands = "IN OUT",
    .n_operands = 2,
    .rows = rows,
    .n_rows = sizeof rows / sizeof *rows,
};

static mm_status work(const mm_job *job)
{
    const mm_options *options = job->options;
    json_t *provenance =
        json_pack("{s:s, s:s, s:o}", "program", table.program, "version",
                  MAGMAX_VERSION, "options", mm_options_to_json(options));
    mm_convert_request request = {
        .input = mm_options_operand(options, 0),
        .output = mm_options_operand(options, 1),
        .with = mm_options_text(options, "with"),
        .model = mm_options_text(options, "model"),
        .names = mm_options_text(options, "names"),
        .dtype = mm_options_text(options, "dtype"),
        .provenance = provenance,
    };
    mm_status st = provenance
                       ? MM_OK
                       : mm_fail(MM_E_MEMORY, "no memory for the provenance");
    st = mm_comm_agree(job->comm, st);
    if (st == MM_OK)
        st = mm_convert(job->comm, job->log, &request);
    json_decref(provenance);
    return st;
}

int main(int argc, char **argv)
{
    return mm_program_main(&table, work, argc, argv);
}
