#ifndef MAGMAX_SRC_TOKENIZER_HTML_ENTITIES_H
#define MAGMAX_SRC_TOKENIZER_HTML_ENTITIES_H

/** A named character reference of HTML5, and what it stands for. */
typedef struct mm_html_entity {
    const char *name; /* without '&'; most end with ';' */
    const char *utf8;
} mm_html_entity;

/** All of them in the byte order of names; the longest name has
 * MM_HTML_ENTITY_MAX bytes, the shortest two. */
enum { MM_N_HTML_ENTITIES = 2231, MM_HTML_ENTITY_MAX = 32 };
extern const mm_html_entity mm_html_entities[MM_N_HTML_ENTITIES];

#endif
