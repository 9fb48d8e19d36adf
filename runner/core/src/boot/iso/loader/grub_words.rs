//! GRUB's script language up to statements: words, quotes, blocks. See GRUB's manual, "Writing full
//! configuration files directly".

use std::iter::Peekable;
use std::vec::IntoIter;

use super::MAX_DEPTH;

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    /// A variable, by its name.
    Variable(String),
}

/// A word whose variables are not replaced yet.
pub(super) type Word = Vec<Part>;

/// What a script does, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    /// A command with its arguments, and the block of `menuentry` and `submenu`.
    Command(Vec<Word>, Option<Vec<Statement>>),
    /// Conditions with what happens under each, and what happens else.
    If(Vec<(Vec<Statement>, Vec<Statement>)>, Vec<Statement>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(Word),
    /// The end of a command.
    End,
    Open,
    Close,
}

/// A script as statements. What is not understood is left out; nothing is an error.
pub(super) fn parse(text: &str) -> Vec<Statement> {
    let mut parser = Parser { tokens: tokens(text).into_iter().peekable() };
    let mut statements = Vec::new();
    // A stray `}` or `fi` must not end the script.
    while parser.tokens.peek().is_some() {
        statements.extend(parser.block(0, &[]));
        parser.tokens.next();
    }
    statements
}

fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0, tokens: Vec::new(), word: None };
    lexer.run();
    lexer.tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    tokens: Vec<Token>,
    /// The word that is being read; also an empty one once a quote has begun.
    word: Option<Word>,
}

impl Lexer {
    fn next(&mut self) -> Option<char> {
        let next = self.chars.get(self.at).copied();
        self.at += 1;
        next
    }

    fn run(&mut self) {
        while let Some(c) = self.next() {
            match c {
                // A comment ends its line, and with it the command.
                '#' if self.word.is_none() => {
                    while self.next().is_some_and(|c| c != '\n') {}
                    self.end(Some(Token::End));
                }
                '\n' | ';' | '|' | '&' => self.end(Some(Token::End)),
                '{' if self.word.is_none() => self.end(Some(Token::Open)),
                '}' if self.word.is_none() => self.end(Some(Token::Close)),
                c if c.is_whitespace() => self.end(None),
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(c) => self.text(c),
                },
                '\'' => {
                    self.word.get_or_insert_default();
                    while let Some(c) = self.next().filter(|c| *c != '\'') {
                        self.text(c);
                    }
                }
                '"' => self.quoted(),
                '$' => self.variable(),
                c => self.text(c),
            }
        }
        self.end(Some(Token::End));
    }

    fn end(&mut self, token: Option<Token>) {
        self.tokens.extend(self.word.take().map(Token::Word));
        self.tokens.extend(token);
    }

    fn text(&mut self, c: char) {
        let word = self.word.get_or_insert_default();
        match word.last_mut() {
            Some(Part::Text(text)) => text.push(c),
            _ => word.push(Part::Text(c.to_string())),
        }
    }

    fn quoted(&mut self) {
        self.word.get_or_insert_default();
        while let Some(c) = self.next() {
            match c {
                '"' => return,
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(c @ ('"' | '\\' | '$')) => self.text(c),
                    Some(c) => {
                        self.text('\\');
                        self.text(c);
                    }
                },
                '$' => self.variable(),
                c => self.text(c),
            }
        }
    }

    fn variable(&mut self) {
        let braces = self.chars.get(self.at) == Some(&'{');
        self.at += usize::from(braces);
        let mut name = String::new();
        while let Some(c) =
            self.chars.get(self.at).filter(|c| c.is_alphanumeric() || matches!(c, '_' | '?' | '@'))
        {
            name.push(*c);
            self.at += 1;
        }
        if braces && self.chars.get(self.at) == Some(&'}') {
            self.at += 1;
        }
        if name.is_empty() {
            self.text('$');
        } else {
            self.word.get_or_insert_default().push(Part::Variable(name));
        }
    }
}

struct Parser {
    tokens: Peekable<IntoIter<Token>>,
}

impl Parser {
    /// Statements up to `}` or one of the words, which is left where it is.
    fn block(&mut self, depth: usize, ends: &[&str]) -> Vec<Statement> {
        let mut statements = Vec::new();
        loop {
            let keyword = match self.tokens.peek() {
                None | Some(Token::Close) => return statements,
                Some(Token::End) => {
                    self.tokens.next();
                    continue;
                }
                Some(Token::Open) => {
                    self.tokens.next();
                    continue;
                }
                Some(Token::Word(word)) => plain(word).to_owned(),
            };
            match keyword.as_str() {
                keyword if ends.contains(&keyword) => return statements,
                "if" if depth < MAX_DEPTH => statements.push(self.conditional(depth)),
                "for" | "while" | "until" | "function" if depth < MAX_DEPTH => self.skip(&keyword, depth + 1),
                _ => statements.push(self.command(depth)),
            }
        }
    }

    fn command(&mut self, depth: usize) -> Statement {
        let mut words = Vec::new();
        loop {
            match self.tokens.peek() {
                Some(Token::Word(_)) => {
                    if let Some(Token::Word(word)) = self.tokens.next() {
                        words.push(word);
                    }
                }
                Some(Token::Open) => {
                    self.tokens.next();
                    let block = if depth < MAX_DEPTH { self.block(depth + 1, &[]) } else { Vec::new() };
                    if self.tokens.peek() == Some(&Token::Close) {
                        self.tokens.next();
                    }
                    return Statement::Command(words, Some(block));
                }
                Some(Token::End) => {
                    self.tokens.next();
                    return Statement::Command(words, None);
                }
                Some(Token::Close) | None => return Statement::Command(words, None),
            }
        }
    }

    fn conditional(&mut self, depth: usize) -> Statement {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            // `if` or `elif`.
            self.tokens.next();
            let condition = self.block(depth + 1, &["then", "fi"]);
            self.take("then");
            let body = self.block(depth + 1, &["elif", "else", "fi"]);
            branches.push((condition, body));
            if !self.at("elif") {
                break;
            }
        }
        if self.take("else") {
            otherwise = self.block(depth + 1, &["fi"]);
        }
        self.take("fi");
        Statement::If(branches, otherwise)
    }

    /// Loops and functions are not followed.
    fn skip(&mut self, keyword: &str, depth: usize) {
        self.tokens.next();
        if keyword == "function" {
            self.command(depth);
        } else {
            self.block(depth, &["done"]);
            self.take("done");
        }
    }

    fn at(&mut self, keyword: &str) -> bool {
        matches!(self.tokens.peek(), Some(Token::Word(word)) if plain(word) == keyword)
    }

    fn take(&mut self, keyword: &str) -> bool {
        let there = self.at(keyword);
        if there {
            self.tokens.next();
        }
        there
    }
}

/// A word that is one text, else nothing.
fn plain(word: &Word) -> &str {
    match word.as_slice() {
        [Part::Text(text)] => text,
        _ => "",
    }
}
