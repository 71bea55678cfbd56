/* Decodes WebP by libwebp; of an animation the first picture, without
 * transparency. */

#include "io/image/image_decoder.h"

#include <string.h>
#include <webp/decode.h>
#include <webp/demux.h>

static mm_status fail(const mm_image_file *file, const char *what)
{
    return mm_fail(MM_E_FORMAT, "%s: corrupt WebP: %s", file->where, what);
}

/** Where there is no alpha the library still gives four channels. */
static void drop_alpha(const uint8_t *rgbx, int64_t n_pixels, uint8_t *rgb)
{
    for (int64_t i = 0; i < n_pixels; i++)
        memcpy(rgb + 3 * i, rgbx + 4 * i, 3);
}

mm_status mm_image_decode_webp(mm_image_decoder *decoder,
                               const mm_image_file *file, mm_image *image)
{
    WebPBitstreamFeatures features;
    if (WebPGetFeatures(file->bytes, (size_t)file->n_bytes, &features) !=
        VP8_STATUS_OK)
        return fail(file, "no header that can be read");
    mm_image_mode mode = features.has_alpha ? MM_IMAGE_RGBA : MM_IMAGE_RGB;
    uint8_t *pixels;
    MM_TRY(mm_image_make_room(decoder, file, features.width, features.height,
                              mode, image, &pixels));

    /* As Pillow does: the first picture of an animation, on its canvas. */
    const WebPData data = {file->bytes, (size_t)file->n_bytes};
    WebPAnimDecoder *animation = WebPAnimDecoderNew(&data, NULL);
    if (!animation)
        return fail(file, "truncated, or its parts do not fit together");
    mm_status st = MM_OK;
    WebPAnimInfo info;
    uint8_t *canvas;
    int end_ms;
    if (!WebPAnimDecoderGetInfo(animation, &info) ||
        info.canvas_width != (uint32_t)features.width ||
        info.canvas_height != (uint32_t)features.height ||
        !WebPAnimDecoderGetNext(animation, &canvas, &end_ms))
        st = fail(file, "its pixels cannot be decoded");
    else if (mode == MM_IMAGE_RGB)
        drop_alpha(canvas, image->width * image->height, pixels);
    else
        memcpy(pixels, canvas, (size_t)(image->width * image->height * 4));
    WebPAnimDecoderDelete(animation);
    return st;
}
